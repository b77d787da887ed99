"""Write the ROOT miniatures, with ROOT itself (a Python with ROOT, and a C++ compiler).

``python make.py`` writes them beside this file. The tests need neither ROOT nor this script.
"""

import array
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import truth  # noqa: E402

#: ROOT's numbers of the compression algorithms.
ALGORITHMS = {"zlib": 1, "lzma": 2, "lz4": 4, "zstd": 5}

#: File: generation of the classes, arguments of :func:`write_trees`.
FILES = {
    "now_zlib": (2024, {}),
    "now_lzma": (2024, {"compression": 205}),
    "now_lz4": (2024, {"compression": 404}),
    "now_zstd": (2024, {"compression": 505}),
    "now_plain": (2024, {"compression": 0, "entries": 2}),
    "several": (2024, {"several": True}),
    "several_unsplit": (2024, {"several": True, "split": 0}),
    "several_whole": (2024, {"several": True, "split": 0, "bypass": False}),
    "unsplit_pointer": (2024, {"split": 0, "by_pointer": True}),
    "single": (2024, {"single": True}),
    "single_unsplit": (2024, {"single": True, "split": 0}),
    "keys": (2024, {"keys": True}),
    "two_branches": (2024, {"entries": 2, "names": ("AtRawEvent", "AtRawEventFiltered")}),
    "beyond": (2024, {"entries": 3, "beyond": 1}),
    "pad2": (2022, {}),
    "pad2_unsplit": (2022, {"split": 0}),
    "by_value": (2021, {"several": True}),
    "by_value_unsplit": (2021, {"several": True, "split": 0}),
    "later": (2030, {}),
}


def write_trees(
    path,
    several=False,
    split=99,
    compression=101,
    bypass=True,
    by_pointer=False,
    single=False,
    keys=False,
    entries=truth.N_ENTRIES,
    names=("AtRawEvent", "AtEventH"),
    beyond=None,
):
    """A file with a tree cbmsim of traces and hits; in entry ``beyond`` a sample beyond 16 bits."""
    import ROOT

    file = ROOT.TFile(str(path), "RECREATE", "", compression)
    if keys:
        for entry in range(2):
            raw = ROOT.AtRawEvent()
            fill_raw(raw, entry, 0)
            file.WriteObject(raw, f"event{entry}")
        file.Close()
        return
    tree = ROOT.TTree("cbmsim", "/cbmroot")
    branches = {}
    for name in names:
        kind = "AtEvent" if name == "AtEventH" else "AtRawEvent"
        if single:
            branches[name] = getattr(ROOT, kind)()
            tree.Branch(f"{name}.", branches[name], 32000, split)
            continue
        branches[name] = ROOT.TClonesArray(kind)
        branches[name].SetName(name)
        branches[name].BypassStreamer(bypass)
        if by_pointer or split:
            tree.Branch(name, branches[name], 32000, split)
        else:  # as FairRoot does for unsplit branches: the object's class leads its bytes
            ROOT.branch_old(tree, name, branches[name], len(branches))
    for entry in range(entries):
        for name in names:
            fill = fill_hits if name == "AtEventH" else fill_raw
            if single:
                fill(branches[name], entry, 0)
                continue
            branches[name].Delete()
            for index in range(truth.n_objects(entry, several)):
                fill(branches[name].ConstructedAt(index), entry, index)
            if entry == beyond and name == "AtRawEvent":
                branches[name].At(0).fPadList[0].fRawAdc[7] = 40_000
        tree.Fill()
    tree.Write()
    file.Close()


def write_columns(path):
    """Plain trees: columns of numbers in arrays and vectors, of traces and of hits."""
    import ROOT

    file = ROOT.TFile(str(path), "RECREATE", "", 101)
    traces = ROOT.TTree("traces", "columns of pads and samples")
    event = array.array("q", [0])
    n = array.array("i", [0])
    n_flat = array.array("i", [0])
    flat = array.array("h", [0] * 512 * 16)
    pads = ROOT.std.vector["int"]()
    nested = ROOT.std.vector["std::vector<short>"]()
    traces.Branch("event", event, "event/L")
    traces.Branch("n", n, "n/I")
    traces.Branch("pads", pads)
    traces.Branch("rows", flat, "rows[n][512]/S")
    traces.Branch("n_adc", n_flat, "n_adc/I")
    traces.Branch("adc", flat, "adc[n_adc]/S")
    traces.Branch("nested", nested)
    for entry in range(truth.N_ENTRIES):
        held = [pad for pad in truth.pads(entry, 0) if not pad["null"]]
        event[0], n[0], n_flat[0] = 100 + 3 * entry, len(held), 512 * len(held)
        pads.clear()
        nested.clear()
        for place, pad in enumerate(held):
            pads.push_back(pad["num"])
            samples = [int(sample) for sample in pad["raw"]]
            flat[512 * place : 512 * (place + 1)] = array.array("h", samples)
            nested.push_back(ROOT.std.vector["short"](samples))
        traces.Fill()
    traces.Write()

    hits = ROOT.TTree("hits", "columns of hits")
    names = ("x", "y", "z", "time", "charge", "integral")
    arrays = {name: array.array("d", [0] * 16) for name in names}
    vectors = {name: ROOT.std.vector["float"]() for name in names}
    hit_pads = ROOT.RVec["int"]()
    hits.Branch("event", event, "event/L")
    hits.Branch("n", n, "n/I")
    for name in names:
        hits.Branch(name, arrays[name], f"{name}[n]/D")
        hits.Branch(f"v_{name}", vectors[name])
    hits.Branch("pad", hit_pads)
    for entry in range(truth.N_ENTRIES):
        held = truth.hits(entry, 0)
        event[0], n[0] = 100 + 3 * entry, len(held)
        hit_pads.clear()
        for vector in vectors.values():
            vector.clear()
        for place, hit in enumerate(held):
            hit_pads.push_back(hit["pad"])
            for name in names:
                arrays[name][place] = hit[name]
                vectors[name].push_back(hit[name])
        hits.Fill()
    hits.Write()
    file.Close()


def write_ntuple(path):
    """An RNTuple of the hits and the samples, in three clusters."""
    import ROOT

    model = ROOT.RNTupleModel.Create()
    names = ("x", "y", "z", "time", "charge", "integral")
    model.MakeField["std::int64_t"]("event")
    for name in names:
        model.MakeField["std::vector<double>"](f"hit_{name}")
    model.MakeField["std::vector<std::int32_t>"]("hit_pad")
    model.MakeField["std::vector<std::int32_t>"]("pads")
    model.MakeField["std::vector<std::int16_t>"]("adc")
    model.MakeField["std::vector<std::array<std::int16_t, 512>>"]("rows")
    writer = ROOT.RNTupleWriter.Recreate(model, "hits", str(path))
    for entry in range(truth.N_ENTRIES):
        row = writer.CreateEntry()
        row["event"] = 100 + 3 * entry
        held = truth.hits(entry, 0)
        for name in names:
            row[f"hit_{name}"] = ROOT.std.vector["double"]([float(hit[name]) for hit in held])
        row["hit_pad"] = ROOT.std.vector["std::int32_t"]([hit["pad"] for hit in held])
        pads = [pad for pad in truth.pads(entry, 0) if not pad["null"]]
        row["pads"] = ROOT.std.vector["std::int32_t"]([pad["num"] for pad in pads])
        samples = ROOT.std.vector["std::int16_t"]()
        rows = ROOT.std.vector["std::array<std::int16_t, 512>"](len(pads))
        for place, pad in enumerate(pads):
            for bucket, sample in enumerate(pad["raw"]):
                samples.push_back(int(sample))
                rows[place][bucket] = int(sample)
        row["adc"], row["rows"] = samples, rows
        writer.Fill(row)
        if entry % 4 == 3:
            writer.CommitCluster()
    writer.CommitDataset()


def write_other(path):
    """A tree of another experiment: objects, but none of ATTPCROOT's."""
    import ROOT

    file = ROOT.TFile(str(path), "RECREATE")
    tree = ROOT.TTree("cbmsim", "/cbmroot")
    tracks = ROOT.TClonesArray("TLorentzVector")
    tree.Branch("Tracks", tracks, 32000, 99)
    for entry in range(4):
        tracks.Clear()
        for index in range(entry):
            tracks.ConstructedAt(index).SetXYZT(1, 2, 3, 4)
        tree.Fill()
    tree.Write()
    file.Close()


def write_unclosed(path):
    """A file whose writer was killed: never closed, and nothing in its directory."""
    code = (
        f"import ROOT, os; f = ROOT.TFile({str(path)!r}, 'RECREATE');"
        " t = ROOT.TTree('cbmsim', ''); v = ROOT.std.vector['float'](4000, 1.5);"
        " t.Branch('v', v); [t.Fill() for _ in range(30)]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def fill_raw(raw, entry, index):
    """Put the true pads into an AtRawEvent."""
    import ROOT

    fill_base(raw, entry, index)
    by_value = hasattr(raw, "fPadArray")
    pads = raw.fPadArray if by_value else raw.fPadList
    pads.clear()
    for made in truth.pads(entry, index):
        if made["null"]:
            if not by_value:
                pads.push_back(ROOT.std.unique_ptr["AtPad"]())
            continue
        pad = ROOT.AtPadTwin() if made["twin"] and not by_value else ROOT.AtPad()
        pad.fPadNum, pad.fSizeID = made["num"], made["size"]
        if hasattr(pad, "fPadCoord"):
            pad.fPadCoord.SetXY(made["x"], made["y"])
            pad.fIsValid = made["valid"]
        else:
            pad.fPadXCoord, pad.fPadYCoord = made["x"], made["y"]
            pad.fAuxName = "an aux pad" * (made["num"] % 3)
        pad.fIsPedestalSubtracted = made["subtracted"]
        for bucket in range(512):
            pad.fRawAdc[bucket] = int(made["raw"][bucket])
            pad.fAdc[bucket] = float(made["adc"][bucket])
        if by_value:
            pads.push_back(pad)
            continue
        if made["num"] % 2 and ROOT.gROOT.GetClass("AtPadArray"):
            extra = ROOT.AtPadArray()
            ROOT.SetOwnership(extra, False)
            ROOT.add_augment(pad, extra)
        ROOT.SetOwnership(pad, False)
        ROOT.add_pad(raw, pad)


def fill_hits(event, entry, index):
    """Put the true hits into an AtEvent."""
    import ROOT

    fill_base(event, entry, index)
    event.fHitArray.clear()
    by_value = "unique_ptr" not in type(event.fHitArray).__name__
    for made in truth.hits(entry, index):
        hit = ROOT.AtHit()
        if hasattr(hit, "fPosition"):
            hit.fPosition.SetXYZ(made["x"], made["y"], made["z"])
        hit.fTimeStamp, hit.fCharge, hit.fPadNum = made["time"], made["charge"], made["pad"]
        if hasattr(hit, "fTraceIntegral"):
            hit.fTraceIntegral = made["integral"]
            if made["pad"] % 3 == 0:
                hit.fMCSimPointArray.push_back(ROOT.AtHit.MCSimPoint())
        if by_value:
            event.fHitArray.push_back(hit)
        else:
            ROOT.SetOwnership(hit, False)
            ROOT.add_hit(event, hit)


def fill_base(event, entry, index):
    """Put what every event has into one."""
    event.SetName("an event")
    event.fEventID = 1000 + 10 * entry + index
    event.fIsGood = entry % 4 != 3
    if hasattr(event, "fTimestamp"):
        event.fTimestamp.clear()
        for _ in range(index + 1):
            event.fTimestamp.push_back(10**12 + entry)
    if hasattr(event, "fAuxPadMap"):
        import ROOT

        event.fAuxPadMap.clear()
        if entry % 2:
            aux = ROOT.AtAuxPad if ROOT.gROOT.GetClass("AtAuxPad") else ROOT.AtPad
            event.fAuxPadMap["MCP"] = aux()
        event.fEventName = "named" * index


def write_generation(generation, names, out):
    """Compile a generation of the classes and write its files; a process of its own."""
    import ROOT

    ROOT.gErrorIgnoreLevel = ROOT.kWarning
    with tempfile.TemporaryDirectory() as build:
        header = Path(build) / f"classes_{generation}.h"
        header.write_text(f"#define GENERATION {generation}\n" + (HERE / "classes.h").read_text())
        if not ROOT.gSystem.CompileMacro(str(header), "O", "", build):
            raise SystemExit(f"classes of {generation} do not compile")
        # pointers to pointers and unique_ptr are beyond Python: a few lines of C++ do it
        helpers = (
            "TClonesArray *held[9];\n"
            "void branch_old(TTree &tree, const char *name, TClonesArray *array, int place)\n"
            "{ held[place] = array;"
            ' tree.BranchOld(name, "TClonesArray", &held[place], 32000, 0); }\n'
        )
        if generation != 2021:
            helpers += "void add_pad(AtRawEvent &e, AtPad *p) { e.fPadList.emplace_back(p); }\n"
        if generation >= 2024:
            helpers += "void add_hit(AtEvent &e, AtHit *h) { e.fHitArray.emplace_back(h); }\n"
            keep = ".reset(a)" if generation == 2024 else " = a"
            helpers += (
                f'void add_augment(AtPad &p, AtPadBase *a) {{ p.fPadAugments["Q"]{keep}; }}\n'
            )
        ROOT.gInterpreter.Declare(helpers)
        for name in names:
            write_trees(out / f"{name}.root", **FILES[name][1])
        if generation == 2021:
            ROOT.TVirtualStreamerInfo.SetStreamMemberWise(False)
            write_trees(out / "by_value_whole.root", several=True)


if __name__ == "__main__":
    os.chdir(HERE)  # ROOT keeps the path that a file was made by in it
    if len(sys.argv) > 1:
        write_generation(int(sys.argv[1]), sys.argv[2:], Path())
    else:
        for generation in sorted({entry[0] for entry in FILES.values()}):
            names = [name for name, entry in FILES.items() if entry[0] == generation]
            subprocess.run([sys.executable, "make.py", str(generation), *names], check=True)
        write_columns(Path("columns.root"))
        write_ntuple(Path("ntuple.root"))
        write_other(Path("other.root"))
        write_unclosed(Path("unclosed.root"))
