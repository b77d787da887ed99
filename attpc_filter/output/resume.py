"""Which runs of a call are done already: made of the same input, model, detector and options."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attpc_filter.errors import UsageError
from attpc_filter.output.manifest import RunOutcome
from attpc_filter.tagging.plan import Plan


def made_of(path: Path, out: Path, fingerprint: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    """All that decides what the outputs of a run are, by name, in texts that can be compared.

    The device and the number of threads are left out: they change a score by rounding at most.
    """
    config = plan.config
    parts = {
        "input": f"{fingerprint['bytes']} bytes, {fingerprint['sha256_of_samples']}",
        "model": plan.bundle.sha256,
        "detector": plan.detector.sha256,
        "thresholds": _text(dict(zip(plan.classes, plan.thresholds, strict=True))),
        "streams": config.streams,
        "kept": _text({"hits": config.keep_hits, "latents": config.keep_latents}),
        "root options": _text(asdict(config.root_options)),
    }
    if config.streams == "link":  # the streams hold the way from here to there
        parts["place of the input"] = os.path.relpath(path.resolve(), out.resolve())
    return parts


def key_of(parts: Mapping[str, str]) -> str:
    """SHA-256 of what a run was made of."""
    return hashlib.sha256(_text(dict(parts)).encode()).hexdigest()


def why_again(former: RunOutcome, parts: Mapping[str, str], path: Path, out: Path) -> str:
    """Say why a run of the books has to be filtered again.

    Parameters
    ----------
    former : RunOutcome
        Its entry in the books, complete.
    parts : mapping of str to str
        What it would be made of now, see :func:`made_of`.
    path : Path
        Its file.
    out : Path
        Output folder.

    Returns
    -------
    str
        Empty if it is done already.

    Raises
    ------
    UsageError
        If the entry is of another file of the same name, which would be lost.
    """
    if not former.made_of:
        return "filtered by an earlier version, which did not say of what"
    if former.key != key_of(parts):
        known = former.made_of.keys() | parts.keys()
        differ = sorted(name for name in known if former.made_of.get(name) != parts.get(name))
        place = former.fingerprint.get("path")
        if "input" in differ and place != str(path.resolve()):
            raise UsageError(
                f"{path}: {out} holds the outputs of another {path.stem}, {place}; choose another"
                " folder, or replace them with --restart"
            )
        return f"other than before: {', '.join(differ)}"
    gone = [name for name in former.files if not (out / name).is_file()]
    return f"{gone[0]} is gone" if gone else ""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
