"""``attpc-filter detector new|check``: a detector file to begin with; what is wrong with one."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attpc_filter.commands import console
from attpc_filter.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from attpc_filter.formats.run import Run
    from attpc_filter.rebuild.detector import Detector

USES_KERNELS = True
#: Events of a run that a detector is checked with, and samples for the noise.
_EVENTS = 100

_EXAMPLE = """\
# A detector of attpc-filter: give it with --detector THIS_FILE. attpc-filter detector check says
# what is wrong with it.
name: {name}

# The pads: a CSV with a header and a row a pad, in any order, columns by name.
{columns}
pads: {pads}
n_pads: 4

n_samples: 512              # samples of a trace; a multiple of 32

z:
  micromegas_time_bucket: 38.0
  length_mm: 1000.0         # of the drift
  window_time_bucket: 278.0
  # in place of the window's time bucket:
  # drift_velocity_mm_per_us: 52.1
  # clock_mhz: 12.5

# All below can be left out.
field:
  tesla: 1.7
  reversed: false           # true: tracks turn the other way than in the model's training data

beam:
  tilt_deg: 0.0             # angle between the beam and the z axis
  azimuth_deg: 0.0          # where it leans to at higher z: 0 to +x, 90 to +y
  x_mm: 0.0                 # where it crosses z = 0
  y_mm: 0.0
  enters_at_micromegas: false

# noise_adc: 5.0            # standard deviation of a trace without signal
"""
_PADS = "pad,x,y,size,cobo,asad,aget,channel,gain,time_offset,beam\n" + "".join(
    f"{pad},{pad % 2 * 5 - 2.5},{pad // 2 * 5 - 2.5},1,0,0,0,{pad},1,0,0\n" for pad in range(4)
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Write a detector file to begin with, or check one."
    words = parser.add_subparsers(dest="what", required=True, metavar="new|check")
    new = words.add_parser("new", help="write a commented detector file, and four pads beside it")
    new.add_argument("file", type=Path, metavar="FILE.yaml", help="file to write")
    check = words.add_parser("check", help="say what is wrong with a detector, or a run with it")
    check.add_argument("detector", metavar="NAME|FILE", help="detector")
    check.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run to check it with")
    check.add_argument("--png", type=Path, metavar="OUT", help="picture of the pads")


def act(options: argparse.Namespace, command: str) -> int:
    """Write the example, or check."""
    return _new(options.file) if options.what == "new" else _check(options)


def describe(detector: "Detector", out: Console) -> None:
    """Print what a detector is."""
    import numpy as np

    plane, frame, z = detector.plane, detector.frame, detector.calibration
    radius = np.hypot(plane.x, plane.y).max()
    console.say(out, "detector", f"{detector.name}, SHA-256 {detector.sha256}")
    console.say(
        out,
        "pads",
        f"{len(plane.x):,}, up to {radius:.0f} mm from the axis; {int(plane.beam.sum()):,} in the"
        f" beam region, {int((plane.gain != 1).sum()):,} with a gain,"
        f" {int((plane.time_offset != 0).sum()):,} with a time offset",
    )
    if detector.channels is None:
        console.say(out, "channels", "not known: GET's own files (.graw) cannot be read")
    else:
        pairs = {(int(cobo), int(asad)) for cobo, asad in detector.channels[:, :2]}
        cobos = sorted({cobo for cobo, _ in pairs})
        console.say(out, "channels", f"{len(pairs)} AsAds of CoBo {', '.join(map(str, cobos))}")
    console.say(out, "samples", str(detector.n_samples))
    console.say(
        out,
        "z",
        f"micromegas at {z.micromegas_time_bucket:g}, window at {z.window_time_bucket:g},"
        f" {z.detector_length:g} mm",
    )
    if frame.is_plain:
        console.say(out, "beam", "along the z axis, enters at z = 0, field as in the training data")
    else:
        console.say(
            out,
            "beam",
            f"tilted by {frame.tilt_deg:g} degrees towards {frame.azimuth_deg:g}, crosses z = 0 at"
            f" ({frame.x_mm:g}, {frame.y_mm:g}) mm"
            + (", enters at the micromegas" if frame.z_is_reversed else "")
            + (", field reversed" if frame.is_mirrored else ""),
        )
    numbers = {"field": (detector.field_t, "T"), "noise": (detector.noise_adc, "ADC")}
    for what, (value, unit) in numbers.items():
        console.say(out, what, "not given" if value is None else f"{value:g} {unit}")
    if detector.absent:
        console.say(out, "no columns", ", ".join(detector.absent))


def _new(path: Path) -> int:
    from attpc_filter.rebuild.padplane import COLUMNS

    pads = path.with_suffix(".csv")
    for file in (path, pads):
        if file.exists():
            raise UsageError(f"{file}: it is there already; give another name")
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: a detector file is called .yaml")
    columns = "\n".join(f"#   {name:<12} {text}" for name, text in COLUMNS.items())
    try:
        path.write_text(
            _EXAMPLE.format(name=path.stem, pads=pads.name, columns=columns), encoding="utf-8"
        )
        pads.write_text(_PADS, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    out = console.output()
    console.say_where(out, "detector", path)
    console.say_where(out, "pads", pads)
    return 0


def _check(options: argparse.Namespace) -> int:
    from attpc_filter.formats.registry import open_run
    from attpc_filter.rebuild.detector_file import load_detector

    detector = load_detector(options.detector)
    out = console.output()
    describe(detector, out)
    if options.png is not None:
        from attpc_filter.pictures import draw_plane

        draw_plane(detector.plane, detector.name, options.png)
        console.say_where(out, "picture", options.png)
    if options.run is None:
        return 0
    with open_run(options.run, channels=detector.channels) as run:
        problems = list(_problems(run, detector, out))
    for text in problems:
        console.say(out, "wrong", text)
    if problems:
        raise InputError(
            f"{options.run}: does not fit detector {detector.name}; what is wrong stands above"
        )
    console.say(out, "run", "fits the detector")
    return 0


def _problems(run: "Run", detector: "Detector", out: Console) -> Iterator[str]:
    """What does not fit of a run, judged by its first events."""
    import numpy as np

    if not run.knows_pads:
        yield f"{run.format_name} know no pads: the table of pads needs cobo, asad, aget, channel"
        return
    if run.n_samples is None:
        console.say(out, "run", "holds points, no traces: pads and samples cannot be checked")
        return
    if run.n_samples != detector.n_samples:
        yield f"traces of {run.n_samples} samples, the detector has {detector.n_samples}"
    matrices: list[Any] = [run.read(*event).traces for event in run.events[:_EVENTS]]
    traces = np.concatenate(
        [np.zeros((0, 5 + run.n_samples), np.int16)]
        + [matrix for matrix in matrices if matrix is not None]
    )
    if not len(traces):
        yield "no trace in the first events"
        return
    pad = traces[:, 4].astype(int)
    on_plane = (pad >= 0) & (pad < len(detector.plane.x))
    lost = 1 - on_plane.mean()
    console.say(out, "traces", f"{len(traces):,} of {len(matrices)} events; {lost:.1%} find no pad")
    if lost > 0.01:
        strange = ", ".join(map(str, np.unique(pad[~on_plane])[:5]))
        yield f"{lost:.1%} of the traces find no pad: pads {strange} and others"
    if detector.channels is not None:
        known = {tuple(row[:4]): row[4] for row in detector.channels.tolist()}
        told = np.array([known.get(tuple(row), -1) for row in traces[:, :4].tolist()])
        other = float((told != pad)[on_plane].mean()) if on_plane.any() else 0.0
        console.say(out, "channels", f"{other:.1%} of the traces have another pad in the file")
        if other > 0.01:
            yield f"{other:.1%} of the traces have another pad than their channel: another map"
    noise = float(np.median(np.abs(np.diff(traces[:, 5:].astype(float), axis=1)))) * 1.05
    console.say(out, "noise", f"about {noise:.1f} ADC")
    if detector.noise_adc is not None and not 0.5 < noise / detector.noise_adc < 2:
        yield f"noise of about {noise:.1f} ADC, the detector says {detector.noise_adc:g}"
