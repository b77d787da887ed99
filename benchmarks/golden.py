"""A record of what the filter makes of given runs, to compare two versions of the code by.

Filters every run twice with the real command line (link streams; copies with hits and latents) and
keeps a SHA-256 of each column of the tag tables, hit stores and latents, and of each object of the
streams::

    python benchmarks/golden.py record.json RUN_FILE...      write the record, or compare with it

If the record exists the run is compared with it: what differs is listed, and the exit code is 1.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import uproot


def digest(values: Any) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    array = np.ascontiguousarray(values)
    head = f"{array.dtype}{array.shape}".encode()
    body = repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
    return hashlib.sha256(head + body).hexdigest()[:20]


def of_table(path: Path) -> dict[str, str]:
    """Columns of a Parquet file."""
    table = pq.read_table(path)
    return {
        name: hashlib.sha256(repr(table[name].to_pylist()).encode()).hexdigest()[:20]
        for name in table.column_names
    }


def of_hdf5(path: Path) -> dict[str, str]:
    """Objects, links and attributes of an HDF5 file.

    A link to a group is read as links to its members.
    """
    found: dict[str, str] = {}

    def attributes(item: h5py.Group | h5py.Dataset, name: str) -> None:
        for key in item.attrs:
            if key not in ("attpc_filter", "attpc_filter_source", "source"):
                found[f"{name}@{key}"] = digest(item.attrs[key])

    def link_name(link: h5py.ExternalLink) -> str:
        return f"{Path(link.filename).name}:{link.path}"

    def walk(group: h5py.Group, prefix: str) -> None:
        attributes(group, prefix)
        for name in group:
            link, place = group.get(name, getlink=True), f"{prefix}/{name}"
            if isinstance(link, h5py.ExternalLink):
                target = group.get(name)
                if isinstance(target, h5py.Group):  # linked whole: the same as its members linked
                    attributes(target, place)
                    for member in target:
                        found[f"{place}/{member}"] = f"-> {link_name(link)}/{member}"
                else:
                    found[place] = f"-> {link_name(link)}"
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                walk(item, place)
            else:
                attributes(item, place)
                found[place] = digest(item[()]) if isinstance(item, h5py.Dataset) else "type"

    with h5py.File(path, "r") as file:
        walk(file, "")
    return {"all": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()} | (
        {name: value for name, value in found.items() if name.startswith("/hits/")}
    )


def of_root(path: Path) -> dict[str, str]:
    """Columns of the tree of events."""
    with uproot.open(path) as file:
        columns = file["events"].arrays(library="ak")
        return {
            name: hashlib.sha256(repr(columns[name].to_list()).encode()).hexdigest()[:20]
            for name in columns.fields
        }


def of_output(out: Path) -> dict[str, Any]:
    """All files of an output folder but manifest and picture."""
    readers = {".parquet": of_table, ".h5": of_hdf5, ".hdf5": of_hdf5, ".root": of_root}
    return {
        str(path.relative_to(out)): readers[path.suffix](path)
        for path in sorted(out.rglob("*"))
        if path.suffix in readers
    }


def main() -> int:
    """Write a record, or compare with one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    record: dict[str, Any] = {}
    for run in options.runs:
        for mode, keep in (("link", []), ("copy", ["--keep-hits", "--keep-latents"])):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                done = subprocess.run(
                    [
                        *(sys.executable, "-m", "attpc_filter.cli", "run", str(run.resolve())),
                        *("--out", str(out), "--streams", mode, "--model", options.model),
                        *("--no-picture", "--threads", "1", *keep),
                    ],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                key = f"{'/'.join(run.parts[-3:])} {mode}"
                record[key] = {"status": done.returncode} | of_output(out)
                print(key, done.returncode, flush=True)
    if not options.record.exists():
        options.record.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
        return 0
    before = json.loads(options.record.read_text(encoding="utf-8"))
    differ = [key for key in sorted({*before, *record}) if before.get(key) != record.get(key)]
    for key in differ:
        for name in sorted({*before.get(key, {}), *record.get(key, {})}):
            if before.get(key, {}).get(name) != record.get(key, {}).get(name):
                print(f"differs: {key}: {name}")
    print(f"{len(record) - len(differ)} equal, {len(differ)} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
