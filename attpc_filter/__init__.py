"""attpc-filter: decide which AT-TPC events to keep before anyone reconstructs them.

This module is the public face: what it lists may be used by notebooks, host programs and other
distributions, and changes only with a line in the change log. All else is private. Each name is
loaded when it is first used, so that the import takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from attpc_filter.config import Config, make_config
    from attpc_filter.errors import (
        AttpcFilterError,
        EmptyRunError,
        InputError,
        OutputError,
        UsageError,
    )
    from attpc_filter.execute.base import Executor, tag_events
    from attpc_filter.execute.choose import make_executor
    from attpc_filter.formats.input_file import InputFile
    from attpc_filter.formats.registry import Format, open_run
    from attpc_filter.formats.run import (
        Allocate,
        Events,
        Run,
        Stream,
        StreamMode,
        UnreadableEvent,
        allocate_new,
    )
    from attpc_filter.host import (
        keep_events,
        known_tags,
        load_in_process,
        score_hits,
        start_executor,
        tag_run,
        write_whole,
    )
    from attpc_filter.interrupts import check_interrupted
    from attpc_filter.output.latents import read_latents
    from attpc_filter.output.manifest import Manifest, read_manifest
    from attpc_filter.output.tag_table import read_tags
    from attpc_filter.rebuild.clean import CleanSettings, find_signal
    from attpc_filter.rebuild.detector import Detector, ZCalibration
    from attpc_filter.rebuild.detector_file import load_detector
    from attpc_filter.rebuild.hits import HitSettings, rebuild_hits, subtract_baseline
    from attpc_filter.records import Hits, Record
    from attpc_filter.score.bundle import Bundle, load_bundle, shipped_bundles
    from attpc_filter.score.contract import Contract
    from attpc_filter.score.outputs import Output
    from attpc_filter.score.scorer import Scorer
    from attpc_filter.tag import PASSTHROUGH, UNCERTAIN, UNREADABLE
    from attpc_filter.tagging.batch import Batch
    from attpc_filter.tagging.plan import Plan, make_plan
    from attpc_filter.trust import Estimate, Tagged, draw_sample, estimate_worth

#: Where each name of the face is defined.
_HOMES = {
    "config": ("Config", "make_config"),
    "errors": ("AttpcFilterError", "EmptyRunError", "InputError", "OutputError", "UsageError"),
    "execute.base": ("Executor", "tag_events"),
    "execute.choose": ("make_executor",),
    "formats.input_file": ("InputFile",),
    "formats.registry": ("Format", "open_run"),
    "formats.run": (
        "Allocate",
        "Events",
        "Run",
        "Stream",
        "StreamMode",
        "UnreadableEvent",
        "allocate_new",
    ),
    "host": (
        "keep_events",
        "known_tags",
        "load_in_process",
        "score_hits",
        "start_executor",
        "tag_run",
        "write_whole",
    ),
    "interrupts": ("check_interrupted",),
    "output.latents": ("read_latents",),
    "output.manifest": ("Manifest", "read_manifest"),
    "output.tag_table": ("read_tags",),
    "rebuild.clean": ("CleanSettings", "find_signal"),
    "rebuild.detector": ("Detector", "ZCalibration"),
    "rebuild.detector_file": ("load_detector",),
    "rebuild.hits": ("HitSettings", "rebuild_hits", "subtract_baseline"),
    "records": ("Hits", "Record"),
    "score.bundle": ("Bundle", "load_bundle", "shipped_bundles"),
    "score.contract": ("Contract",),
    "score.outputs": ("Output",),
    "score.scorer": ("Scorer",),
    "tag": ("PASSTHROUGH", "UNCERTAIN", "UNREADABLE"),
    "tagging.batch": ("Batch",),
    "tagging.plan": ("Plan", "make_plan"),
    "trust": ("Estimate", "Tagged", "draw_sample", "estimate_worth"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PASSTHROUGH",
    "UNCERTAIN",
    "UNREADABLE",
    "Allocate",
    "AttpcFilterError",
    "Batch",
    "Bundle",
    "CleanSettings",
    "Config",
    "Contract",
    "Detector",
    "EmptyRunError",
    "Events",
    "Estimate",
    "Executor",
    "Format",
    "HitSettings",
    "Hits",
    "InputError",
    "InputFile",
    "Manifest",
    "Output",
    "OutputError",
    "Plan",
    "Record",
    "Run",
    "Scorer",
    "Stream",
    "StreamMode",
    "Tagged",
    "UnreadableEvent",
    "UsageError",
    "ZCalibration",
    "__version__",
    "draw_sample",
    "estimate_worth",
    "allocate_new",
    "check_interrupted",
    "find_signal",
    "keep_events",
    "known_tags",
    "load_bundle",
    "load_detector",
    "load_in_process",
    "make_config",
    "make_executor",
    "make_plan",
    "open_run",
    "read_latents",
    "read_manifest",
    "read_tags",
    "rebuild_hits",
    "score_hits",
    "shipped_bundles",
    "start_executor",
    "subtract_baseline",
    "tag_events",
    "tag_run",
    "write_whole",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
