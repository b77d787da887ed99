"""What we write as ROOT, in the hands of real ROOT; and what it makes of it, in ours."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from attpc_filter.formats.registry import open_run
from attpc_filter.formats.run import StreamMode
from attpc_filter.output.friend import write_friend
from attpc_filter.records import N_TRACE_COLUMNS, Record
from attpc_filter.root_options import RootOptions
from tests.conftest import Cli, read_tag_table, shared
from tests.formats.root.root_truth import (
    DATA,
    SHARED,
    hits_of,
    miniature_truth,
    shared_truth,
    traces_of,
)
from tests.plugins.attpcroot.conftest import PLUGIN, Root


def write_tags(path: Path, n_entries: int) -> dict[str, list[int]]:
    """A friend tree whose tags go proton, carbon, noise, uncertain in turn; entries by tag."""
    names = ["proton", "carbon", "noise", "uncertain"]
    tags = [names[entry % 4] for entry in range(n_entries)]
    scored = np.array([tag != "uncertain" for tag in tags])
    scores = np.arange(n_entries, dtype=np.float32) / 100
    columns = {
        "run": pa.array(np.full(n_entries, 42, np.int32)),
        "event": pa.array(np.arange(n_entries)),
        "tag": pa.array(tags),
        **{f"score_{name}": pa.array(scores, mask=~scored) for name in names[:3]},
        "n_hits": pa.array(np.arange(n_entries, dtype=np.int32)),
        "reason": pa.array([""] * n_entries),
    }
    write_friend(path, pa.table(columns), {"model": "m"}, n_entries)
    return {name: [e for e in range(n_entries) if tags[e] == name] for name in names}


# ------------------------------------------------------------------------------------- friend trees


def test_a_friend_tree_goes_with_its_tree_entry_by_entry(root: Root, tmp_path: Path) -> None:
    entries = write_tags(tmp_path / "tags.root", 9)
    seen = root(
        """
file = ROOT.TFile(given["events"])
tree = file.Get("cbmsim")
tree.AddFriend("tags", given["tags"])
for tag in ("proton", "carbon", "noise", "uncertain"):
    n = tree.Draw("Entry$:tags.event:tags.score_proton", f'tags.tag=="{tag}"', "goff")
    answer[tag] = [[int(tree.GetVal(k)[i]) for i in range(n)] for k in (0, 1)]
n = tree.Draw("tags.score_carbon", "tags.scored && tags.tag_code == 1", "goff")
answer["scores"] = [tree.GetV1()[i] for i in range(n)]
frame = ROOT.RDataFrame(tree)
protons = frame.Filter("tags.tag_code == 0").Take["Long64_t"]("tags.event")
high = frame.Filter("tags.score_noise > 0.055").Count()
answer["frame"] = list(map(int, protons.GetValue()))
answer["high"] = int(high.GetValue())
""",
        events=DATA / "now_zlib.root",
        tags=tmp_path / "tags.root",
    )
    for tag, expected in entries.items():
        assert seen[tag] == [expected, expected]
    assert np.allclose(seen["scores"], [0.01, 0.05])
    assert seen["frame"] == entries["proton"]
    assert seen["high"] == 2  # entries 6 and 8; 7 was not scored


def run_macro(root: Root, dictionary: str | None, *arguments: object) -> dict[str, object]:
    """What use_friend.C prints and returns."""
    return root(
        """
if given["dictionary"]:
    assert ROOT.gSystem.Load(given["dictionary"]) >= 0
ROOT.gROOT.ProcessLine(".L " + given["macro"])
quoted = ", ".join(json.dumps(argument) for argument in given["arguments"])
answer["returned"] = int(ROOT.gROOT.ProcessLine(f"use_friend({quoted})"))
""",
        macro=PLUGIN / "use_friend.C",
        dictionary=dictionary,
        arguments=[str(argument) for argument in arguments],
    )


def test_the_macro_counts_and_skims(root: Root, dictionary: str, tmp_path: Path) -> None:
    entries = write_tags(tmp_path / "tags.root", 9)["carbon"]
    skim = tmp_path / "skim.root"
    events = DATA / "now_zlib.root"
    seen = run_macro(root, dictionary, events, tmp_path / "tags.root", "carbon", skim)
    assert seen["returned"] == 0
    for line in ("carbon: 2 of 9", "Draw: 2", "RDataFrame: 2", "CopyTree: 2 entries"):
        assert line in str(seen["out"])
    for branch, truth in (("AtRawEvent", traces_of), ("AtEventH", hits_of)):
        with open_run(skim, RootOptions(branch=branch)) as run:
            records = list(run.records())
        assert len(records) == len(entries)
        for entry, record in zip(entries, records, strict=True):
            assert truth(entry).matches(record), record.reason


def test_the_macro_refuses_to_skim_objects_that_root_does_not_know(
    root: Root, tmp_path: Path
) -> None:
    write_tags(tmp_path / "tags.root", 9)
    skim = tmp_path / "skim.root"
    seen = run_macro(root, None, DATA / "now_zlib.root", tmp_path / "tags.root", "carbon", skim)
    assert seen["returned"] == 3
    assert not skim.exists()


def test_the_macro_refuses_the_tags_of_another_file(root: Root, tmp_path: Path) -> None:
    write_tags(tmp_path / "tags.root", 8)
    seen = run_macro(root, None, DATA / "now_zlib.root", tmp_path / "tags.root", "carbon")
    assert seen["returned"] == 1


def test_the_macro_refuses_a_tag_that_is_unknown(root: Root, tmp_path: Path) -> None:
    write_tags(tmp_path / "tags.root", 9)
    skim = tmp_path / "skim.root"
    seen = run_macro(root, None, DATA / "now_zlib.root", tmp_path / "tags.root", "carbn", skim)
    assert seen["returned"] == 1
    assert not skim.exists()


def test_the_macro_refuses_to_write_over_the_run(root: Root, tmp_path: Path) -> None:
    write_tags(tmp_path / "tags.root", 9)
    run, link = tmp_path / "run.root", tmp_path / "link.root"
    content = (DATA / "now_zlib.root").read_bytes()
    run.write_bytes(content)
    link.symlink_to(run)
    for output in (run, link):
        seen = run_macro(root, None, run, tmp_path / "tags.root", "carbon", output)
        assert seen["returned"] == 1
        assert run.read_bytes() == content


def test_a_skim_has_what_fairroot_looks_for_beside_the_tree(
    root: Root, dictionary: str, tmp_path: Path
) -> None:
    """Keys in the shape that FairRoot writes: lists of names, each one object, and a folder."""
    write_tags(tmp_path / "tags.root", 9)
    run, skim = tmp_path / "run.root", tmp_path / "skim.root"
    run.write_bytes((DATA / "now_zlib.root").read_bytes())
    root(
        """
file = ROOT.TFile(given["run"], "UPDATE")
names = ROOT.TList()
texts = [ROOT.TObjString(name) for name in ("AtRawEvent", "AtEventH")]  # Python's to delete
for text in texts:
    names.Add(text)
names.Write("BranchList", ROOT.TObject.kSingleKey)
ROOT.TList().Write("TimeBasedBranchList", ROOT.TObject.kSingleKey)
ROOT.TFolder("cbmout", "Main Output Folder").Write()
ROOT.TNamed("FileHeader", "run 42").Write()
file.Close()
""",
        run=run,
    )
    seen = run_macro(root, dictionary, run, tmp_path / "tags.root", "carbon", skim)
    assert seen["returned"] == 0, seen["out"]
    found = root(
        """
file = ROOT.TFile(given["skim"])
answer["branches"] = [str(name.GetString()) for name in file.Get("BranchList")]
answer["keys"] = {key.GetName(): key.GetClassName() for key in file.GetListOfKeys()}
answer["entries"] = int(file.Get("cbmsim").GetEntries())
""",
        skim=skim,
    )
    assert found["branches"] == ["AtRawEvent", "AtEventH"]
    assert found["entries"] == 2
    expected = {
        "BranchList": "TList",
        "TimeBasedBranchList": "TList",
        "cbmout": "TFolder",
        "FileHeader": "TNamed",
        "cbmsim": "TTree",
    }
    assert found["keys"] == expected


_FAIR_HEADERS = (
    *("AtCopyTreeTask", "AtDataReductionTask", "AtPSAMax", "AtPSAtask", "FairFileSource"),
    *("FairParAsciiFileIo", "FairRootFileSink", "FairRootManager", "FairRunAna", "FairRuntimeDb"),
    "FairTask",
)


def run_chain(root: Root, folder: Path, *arguments: str) -> dict[str, object]:
    """What filter_chain.C returns with stand-ins for FairRoot: entries 1 and 5 have no event."""
    stand_in = Path(__file__).with_name("fairroot_stand_in.h")
    for name in _FAIR_HEADERS:
        (folder / f"{name}.h").write_text(f'#include "{stand_in}"\n')
    return root(
        """
ROOT.gInterpreter.AddIncludePath(given["folder"])
ROOT.gROOT.ProcessLine(".L " + given["macro"])
ROOT.gInterpreter.ProcessLine("EmptyEntries() = {1, 5};")
answer["returned"] = int(ROOT.gROOT.ProcessLine(f"filter_chain({given['arguments']})"))
""",
        folder=folder,
        macro=PLUGIN / "filter_chain.C",
        arguments=", ".join(arguments),
    )


def test_the_chain_fills_the_wanted_entries_only(root: Root, tmp_path: Path) -> None:
    """An entry without an event goes by its tag like the others."""
    entries = write_tags(tmp_path / "tags.root", 9)
    out = tmp_path / "out.txt"
    files = [f'"{path}"' for path in (DATA / "now_zlib.root", tmp_path / "tags.root", out)]
    more = ['{"proton", "noise"}', '"p.par"', '"Hits"']
    seen = run_chain(root, tmp_path, *files, *more)
    assert seen["returned"] == 0, seen["out"]
    wanted = sorted(entries["proton"] + entries["noise"])
    assert list(map(int, out.read_text().split())) == wanted


@pytest.mark.parametrize(
    ("n_tags", "wanted", "branch"),
    [
        (8, "proton", "Hits"),
        (10, "proton", "Hits"),
        (9, "protn", "Hits"),
        (9, "proton", "AtEventH"),
    ],
    ids=["fewer tags", "more tags", "mistyped", "hits are there already"],
)
def test_the_chain_refuses_before_it_writes(
    n_tags: int, wanted: str, branch: str, root: Root, tmp_path: Path
) -> None:
    write_tags(tmp_path / "tags.root", n_tags)
    out = tmp_path / "out.txt"
    files = [f'"{path}"' for path in (DATA / "now_zlib.root", tmp_path / "tags.root", out)]
    seen = run_chain(root, tmp_path, *files, f'{{"{wanted}"}}', '"p.par"', f'"{branch}"')
    assert seen["returned"] == 1
    assert not out.exists()


def test_the_chain_refuses_to_write_over_the_run(root: Root, tmp_path: Path) -> None:
    write_tags(tmp_path / "tags.root", 9)
    run = tmp_path / "run.root"
    content = (DATA / "now_zlib.root").read_bytes()
    run.write_bytes(content)
    files = [f'"{path}"' for path in (run, tmp_path / "tags.root", run)]
    seen = run_chain(root, tmp_path, *files, '{"proton"}', '"p.par"', '"Hits"')
    assert seen["returned"] == 1
    assert run.read_bytes() == content


def test_a_skim_of_a_shared_file(root: Root, dictionary: str, tmp_path: Path) -> None:
    name = "raw_fair99"
    if not (SHARED / f"{name}.root").exists():
        pytest.skip(f"needs {SHARED / name}.root, beside the repository")
    path, _, truth = shared_truth(name)
    entries = write_tags(tmp_path / "tags.root", len(truth))["proton"]
    skim = tmp_path / "skim.root"
    seen = run_macro(root, dictionary, path, tmp_path / "tags.root", "proton", skim)
    assert seen["returned"] == 0
    with open_run(skim) as run:
        records = list(run.records())
    assert len(records) == len(entries)
    assert all(truth[e].matches(r) for e, r in zip(entries, records, strict=True))


def test_the_header_keeps_what_is_wanted(root: Root, tmp_path: Path) -> None:
    entries = write_tags(tmp_path / "tags.root", 9)
    seen = root(
        """
ROOT.gInterpreter.ProcessLine('#include "' + given["header"] + '"')
ROOT.gInterpreter.Declare('''
std::vector<int> kept(const char *path, std::vector<std::string> tags)
{
   AttpcFilterTags all(path);
   Long64_t now = 0;
   AttpcFilterTags::ReductionFunction keep = all.Keep(tags, [&now] { return now; });
   std::vector<int> entries;
   for (now = 0; now < all.GetEntries(); ++now)
      if (keep())
         entries.push_back(now);
   return entries;
}
std::string beyond(const char *path)
{
   AttpcFilterTags all(path);
   try {
      all.Keep({"proton"}, [] { return 9; })();
   } catch (const std::out_of_range &error) {
      return error.what();
   }
   return "";
}
''')
answer["kept"] = list(ROOT.kept(given["tags"], ["proton", "noise"]))
answer["none"] = list(ROOT.kept(given["tags"], ["neutron"]))
answer["beyond"] = str(ROOT.beyond(given["tags"]))
tags = ROOT.AttpcFilterTags(given["tags"])
answer["tag"] = [str(tags.GetTag(e)) for e in range(tags.GetEntries())]
answer["score"] = [tags.GetScore("carbon", e) for e in (1, 2)]
answer["unscored"] = tags.GetScore("carbon", 3) != tags.GetScore("carbon", 3)
answer["code"] = tags.GetCode("uncertain")
""",
        header=PLUGIN / "AttpcFilterTags.h",
        tags=tmp_path / "tags.root",
    )
    assert seen["kept"] == sorted(entries["proton"] + entries["noise"])
    assert seen["none"] == []
    assert seen["beyond"] == "entry 9 has no tag: are these the tags of this file?"
    assert [seen["tag"].count(tag) for tag in ("proton", "carbon")] == [3, 2]
    assert np.allclose(seen["score"], [0.01, 0.02])
    assert seen["unscored"]
    assert seen["code"] == 3


# ------------------------------------------------------------------------------------------ streams


def write_stream(
    path: Path, options: RootOptions | None, mode: StreamMode, entries: list[int]
) -> None:
    with open_run(DATA / "now_zlib.root", options) as run:
        stream = run.create_stream(path, mode, "proton")
        for entry in entries:
            stream.add(Record(entry, str(entry)))
        stream.close()


def test_streams_are_read_by_rdataframe(root: Root, tmp_path: Path) -> None:
    entries = [1, 4, 5, 6]
    write_stream(tmp_path / "hits.root", RootOptions(branch="AtEventH"), "copy", entries)
    write_stream(tmp_path / "traces.root", None, "copy", entries)
    write_stream(tmp_path / "list.root", None, "link", entries)
    seen = root(
        """
names = ("x", "y", "z", "time_bucket", "charge", "integral")
files = [f"{given['folder']}/{name}.root" for name in ("hits", "traces", "list")]
hits, traces, listed = (ROOT.RDataFrame("events", file) for file in files)
# all are asked for before the first is looked at: ROOT compiles and loops once a file
taken = {name: hits.Take["ROOT::RVecD"](f"hits_{name}") for name in names}
taken |= {"hit_pad": hits.Take["ROOT::RVecI"]("hits_pad")}
taken |= {name: traces.Take["ROOT::RVec<Short_t>"](name) for name in ("pad", "adc")}
for name, rows in taken.items():
    answer[name] = [list(map(float, row)) for row in rows.GetValue()]
answer["entry"] = list(map(int, listed.Take["Long64_t"]("entry").GetValue()))
""",
        folder=tmp_path,
    )
    assert seen["entry"] == entries
    names = ("x", "y", "z", "time_bucket", "charge", "integral", "hit_pad")
    for place, entry in enumerate(entries):
        points, traces = hits_of(entry).points, traces_of(entry)
        assert points is not None
        assert traces.pads is not None
        assert traces.raw is not None
        for column, name in enumerate(names):
            assert seen[name][place] == points[:, column].tolist()
        assert seen["pad"][place] == traces.pads.tolist()
        assert seen["adc"][place] == traces.raw.ravel().tolist()


# ---------------------------------------------------------------------------------- what ROOT makes


def test_files_that_hadd_put_together(root: Root, dictionary: str, tmp_path: Path) -> None:
    merged = tmp_path / "merged.root"
    made = root(
        """
ROOT.gSystem.Load(given["dictionary"])
merger = ROOT.TFileMerger(False)
merger.OutputFile(given["merged"])
for _ in range(3):
    merger.AddFile(given["source"])
answer["made"] = bool(merger.Merge())
""",
        merged=merged,
        source=DATA / "several.root",
        dictionary=dictionary,
    )
    assert made["made"]
    truth = miniature_truth("several")[2]
    with open_run(merged) as run:
        records = list(run.records())
    assert len(records) == 3 * len(truth)
    for entry, record in enumerate(records):
        assert truth[entry % len(truth)].matches(record), record.reason


def test_the_same_physics_from_hdf5_and_from_an_attpcroot_tree(
    root: Root, dictionary: str, tmp_path: Path, cli: Cli
) -> None:
    # events that no trigger excuses from being classified, as merger HDF5 and as a tree
    merged = tmp_path / "merged.h5"
    counts, matrices = [], []
    with open_run(shared("layouts/merger_2.0/run_0101.h5")) as run, h5py.File(merged, "w") as file:
        file["meta/meta"] = np.zeros(4)
        for record in run.records():
            if record.passthrough or record.traces is None or len(counts) == 24:
                continue
            file[f"get/evt{len(counts)}_data"] = record.traces
            file[f"get/evt{len(counts)}_header"] = np.zeros(2)
            counts.append(len(record.traces))
            matrices.append(record.traces)
    np.concatenate(matrices).tofile(tmp_path / "traces.bin")
    tree = tmp_path / "run_0001.root"
    root(
        """
ROOT.gSystem.Load(given["dictionary"])
ROOT.gInterpreter.Declare('''
void fill(AtRawEvent &event, const short *rows, int n, int columns)
{
   event.fPadList.clear();
   for (int i = 0; i < n; ++i) {
      auto pad = std::make_unique<AtPad>();
      pad->fPadNum = rows[i * columns + 4];
      for (int k = 0; k < 512; ++k)
         pad->fAdc[k] = pad->fRawAdc[k] = rows[i * columns + 5 + k];
      event.fPadList.push_back(std::move(pad));
   }
}
''')
import numpy as np
rows = np.fromfile(given["traces"], np.int16).reshape(-1, given["columns"])
file = ROOT.TFile(given["tree"], "RECREATE")
tree = ROOT.TTree("cbmsim", "/cbmroot")
array = ROOT.TClonesArray("AtRawEvent")
tree.Branch("AtRawEvent", array, 64000, 99)
at = 0
for count in given["counts"]:
    array.Delete()
    part = np.ascontiguousarray(rows[at : at + count])
    ROOT.fill(array.ConstructedAt(0), part, count, given["columns"])
    tree.Fill()
    at += count
tree.Write()
file.Close()
""",
        dictionary=dictionary,
        traces=tmp_path / "traces.bin",
        counts=counts,
        columns=N_TRACE_COLUMNS,
        tree=tree,
    )
    out = tmp_path / "out"
    ended = cli("run", merged, tree, "--out", out, "--streams", "none")
    assert ended.status == 0, ended.err
    from_hdf5 = read_tag_table(out / "tags" / "merged.parquet").values()
    from_root = read_tag_table(out / "tags" / "run_0001.parquet").values()
    assert len(from_hdf5) == len(from_root) == len(counts)
    assert len({row["tag"] for row in from_root}) > 1
    for one, other in zip(from_hdf5, from_root, strict=True):
        for key in one.keys() - {"run", "event"}:
            assert one[key] == other[key]
