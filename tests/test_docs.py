"""The pages say what the program does: the reference is as generated, the examples run."""

import importlib.util
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import attpc_filter

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def test_reference_is_as_generated() -> None:
    check = [sys.executable, ROOT / "docs" / "make_reference.py", "--check"]
    assert subprocess.run(check, cwd=ROOT).returncode == 0, "run `make reference`"


def test_links_lead_somewhere() -> None:
    for page in [ROOT / name for name in PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands(page: str) -> list[str]:
    """The commands of a page's bash blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.replace("/data/e12014/", "") for line in lines if line]


def write_labels(folder: Path) -> None:
    """A user's labels of the sample: its tags will do."""
    rows = [
        row
        for path in sorted((folder / "filtered" / "tags").iterdir())
        for row in pq.read_table(path).to_pylist()
    ]
    lines = [f"{row['run']},{row['event']},{row['tag']}" for row in rows if not row["reason"]]
    (folder / "labels.csv").write_text("\n".join(["run,event,label", *lines]) + "\n")


@pytest.mark.parametrize("page", ["filtering.md", "retagging.md", "cluster.md"])
def test_commands_of_the_page_run(page: str, tmp_path: Path) -> None:
    """Every command of a page, with the sample in place of the user's runs."""
    sample = ROOT / "sample" / "run_0101.h5"
    for name in ("run_0101.h5", "run_0102.h5"):
        shutil.copy(sample, tmp_path / name)
    listed = commands(page)
    assert len(listed) >= 3
    for command in listed:
        words = shlex.split(command)
        target = words.pop() if ">" in words else None
        program, *words = [word for word in words if word != ">"]
        if words[0] == "run" and "--part" not in words:
            words += ["--restart", "--no-picture"]
        if program == "attpc-export":
            if importlib.util.find_spec("attpc_export") is None:
                pytest.skip("the commands before ran; the next one needs attpc-export")
            write_labels(tmp_path)
        modules = {"attpc-filter": "attpc_filter.cli", "attpc-export": "attpc_export.cli"}
        how = [sys.executable, "-m", modules[program]] if program in modules else [program]
        ended = subprocess.run([*how, *words], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        if target:
            (tmp_path / target).write_text(ended.stdout, encoding="utf-8")


def test_the_notebook_page_prints_what_it_says(tmp_path: Path) -> None:
    """Its blocks run one after another, in one process, and each prints the text below it."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    cells = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(cells) == text.count("```python") >= 8
    shutil.copy(ROOT / "sample" / "run_0101.h5", tmp_path)
    program = "\n".join(f"{code}\nprint('-- next cell', flush=True)" for code, _ in cells)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("-- next cell\n") == [*(shown for _, shown in cells), ""]


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholders(page: str) -> None:
    assert not re.search(r"@[A-Z]+@|TODO|FIXME", (ROOT / page).read_text(encoding="utf-8"))


def test_the_pages_about_python_name_the_whole_face() -> None:
    """The site shows what has a docstring; the table of the page names the rest."""
    table = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in attpc_filter.__all__:
        value = getattr(attpc_filter, name)
        if not (isinstance(value, type) or inspect.isfunction(value)):
            assert f"`{name}`" in table, name
