"""``attpc-filter label``: the arguments, and the server that they start."""

import argparse
import contextlib
import csv
import ipaddress
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from attpc_filter import (
    Config,
    Detector,
    Manifest,
    OutputError,
    UsageError,
    make_plan,
)
from attpc_filter_web import tables
from attpc_filter_web.catalogue import Catalogue, load_catalogue
from attpc_filter_web.choose import Chooser
from attpc_filter_web.clusters import load_clusters
from attpc_filter_web.events import EventReader
from attpc_filter_web.flips import compare_with
from attpc_filter_web.session import Session
from attpc_filter_web.store import UNSURE, Context, Store
from attpc_filter_web.suggest import Suggester

USES_KERNELS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``attpc-filter label``."""
    parser.description = (
        "Show events in a browser and keep the labels that are given to them; or, with --export,"
        " write the labels as the table that attpc-export takes."
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="FOLDER|RUNS",
        help="output folder of attpc-filter run (with --keep-latents for the best suggestions), or"
        " run files; run files beside a folder are those that have moved since",
    )
    add(
        "--labels",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="labels database; made if it does not exist. Several to --export them together",
    )
    add("--export", type=Path, metavar="CSV", help="write the labels and end")
    add("--keep-unsure", action="store_true", help="export: let unsure count as a label")
    add("--by-labeller", action="store_true", help="export: add a column a labeller")
    add(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="labels that can be given (default: the model's classes)",
    )
    add("--model", metavar="NAME|FILE", help="whose hits (default: the folder's, or default)")
    add(
        "--detector",
        metavar="NAME|FILE",
        help="of run files (default: AT-TPC); a folder has its own",
    )
    add("--list", type=Path, metavar="CSV", help="events to show: a table with run and event")
    add("--compare", type=Path, metavar="DIR", help="another output folder with the same events")
    add(
        "--clusters", type=Path, metavar="DIR", help="folder of attpc-export find-clusters, to name"
    )
    add(
        "--repeats",
        type=float,
        default=0.08,
        metavar="SHARE",
        help="share of the events that are shown again, unannounced (default: 0.08)",
    )
    add(
        "--refit-every",
        type=int,
        default=10,
        metavar="N",
        help="labels after which suggestions are made anew (default: 10)",
    )
    add("--port", type=int, default=8765, metavar="N", help="port (default: 8765; 0: a free one)")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; any but this machine's own asks for a token",
    )
    add("--token", action="store_true", help="ask for a token on localhost too: shared machines")


def act(options: argparse.Namespace, command: str) -> int:
    """Write the labels, or serve the pages until Ctrl-C."""
    if options.export is not None:
        return _export(options)
    if not options.paths:
        raise UsageError("give an output folder of attpc-filter run, or run files")
    if len(options.labels) > 1:
        raise UsageError("--labels: answers go into one file; several are for --export")
    _check_shares(options)
    session = make_session(options)
    _serve(session, options)
    return 0


def _check_shares(options: argparse.Namespace) -> None:
    if not 0 <= options.repeats <= 0.5:
        raise UsageError(f"--repeats {options.repeats:g}: must be 0 to 0.5")
    if options.refit_every < 1:
        raise UsageError(f"--refit-every {options.refit_every}: must be at least 1")


def _export(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        stores = [Store(path, create=False) for path in options.labels]
        for store in stores:
            stack.callback(store.close)
        answers, contexts = tables.merge(stores)
    text = tables.to_csv(answers, contexts, options.keep_unsure, options.by_labeller)
    staged = options.export.with_name(f".{options.export.name}.partial")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(options.export)
    except OSError as error:
        raise OutputError(f"{options.export}: cannot be written: {error.strerror}") from error
    decided = tables.decide(answers, options.keep_unsure)
    n_labelled = sum(bool(row.label) for row in decided)
    print(f"labels     {options.export}  ({n_labelled} events of {len(decided)} with an answer)")
    return 0


def make_session(options: argparse.Namespace, seed: int = 1) -> Session:
    """Load all that the pages show.

    Parameters
    ----------
    options : Namespace
        The parsed arguments.
    seed : int
        Of the random order, of repeats and of the trust sample; a server always takes the same, so
        that it goes on where it was.

    Raises
    ------
    UsageError
        If something cannot be used; the message says what to do.
    """
    catalogue = load_catalogue(options.paths)
    manifest = catalogue.manifest
    config = _config(manifest, options)
    plan = make_plan(config)
    contract, detector, sha256 = plan.bundle.contract, plan.detector, plan.bundle.sha256
    if not options.model and manifest is not None and sha256 != manifest.model["sha256"]:
        raise UsageError(
            f"model {plan.bundle.path}: is not the one that made this folder any more; give it with"
            " --model"
        )
    classes = tuple(options.classes or (entry.name for entry in contract.classes))
    if len(classes) < 2 or len(set(classes)) < len(classes) or len(classes) > 9:
        raise UsageError(f"--classes {' '.join(classes)}: give two to nine different names")
    if UNSURE in classes:
        raise UsageError(f"--classes: {UNSURE!r} is there anyway")
    suggester = Suggester(catalogue, options.refit_every, classes)
    flips = None if options.compare is None else compare_with(catalogue, options.compare)
    listed = [] if options.list is None else _read_list(options.list, catalogue)
    reader = EventReader(catalogue, detector, contract.hits, contract.clean, config)
    return Session(
        catalogue=catalogue,
        reader=reader,
        store=Store(options.labels[0]),
        context=Context(contract.name, sha256, detector.name, detector.sha256, classes),
        chooser=Chooser(
            catalogue,
            suggester,
            options.repeats,
            seed,
            [] if flips is None else [flip["row"] for flip in flips["flips"]],
            listed,
        ),
        suggester=suggester,
        geometry=_geometry(detector),
        flips=flips,
        clusters=None if options.clusters is None else load_clusters(options.clusters, catalogue),
        seed=seed,
    )


def _config(manifest: Manifest | None, options: argparse.Namespace) -> Config:
    """The options that decide what hits there are: those that the folder was made with."""
    if manifest is None:
        return Config(model=options.model or "default", detector=options.detector or "")
    if options.detector:
        raise UsageError("--detector: the folder has its own; give run files to take another one")
    names = ("detector", "root_", "micromegas_", "window_")  # of the detector, and of ROOT files
    given: dict[str, Any] = {
        name: value for name, value in manifest.config.items() if name.startswith(names)
    }
    return Config(**given | {"model": options.model or manifest.model["path"]})


def _geometry(detector: Detector) -> dict[str, Any]:
    plane = detector.plane
    radius = np.hypot(plane.x, plane.y)
    on_beam = radius[plane.beam]
    return {
        "n_pads": len(plane.x),
        "radius_mm": float(np.ceil(radius.max())),
        "beam_radius_mm": float(on_beam.max()) if len(on_beam) else 0.0,
        "length_mm": detector.calibration.detector_length,
        "field_t": detector.field_t,
        "is_mirrored": detector.frame.is_mirrored,
    }


def _read_list(path: Path, catalogue: Catalogue) -> list[int]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(line for line in file if not line.startswith("#"))
            keys = [(int(line["run"]), int(line["event"])) for line in lines]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: no table with the columns run and event: {error}") from error
    rows = [catalogue.rows[key] for key in keys if key in catalogue.rows]
    if not rows:
        raise UsageError(f"{path}: none of its events is among those to label")
    return rows


def _serve(session: Session, options: argparse.Namespace) -> None:
    import uvicorn

    from attpc_filter_web.server import make_app

    is_local = options.host == "localhost" or _is_loopback(options.host)
    token = secrets.token_urlsafe(24) if options.token or not is_local else ""
    listener = _listen(options.host, options.port)
    port = listener.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{port}/" + (f"?token={token}" if token else "")
    print(f"labels     {options.labels[0]}")
    print(f"open       {address}")
    print(f"over ssh   ssh -L {port}:localhost:{port} {socket.gethostname()}   on your own machine")
    print("Ctrl-C ends; every answer is on the disk already", flush=True)
    config = uvicorn.Config(
        make_app(session, token),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,  # a page that is still open does not hold Ctrl-C up
    )
    threading.Thread(target=session.reader.compile, daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        print("", file=sys.stderr)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(
            f"{host}:{port}: cannot listen there: {error}; try another --port"
        ) from error
    return listener
