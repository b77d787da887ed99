"""Another tagging of the same events: which events it tags otherwise."""

from collections import Counter
from pathlib import Path
from typing import Any

from attpc_filter import UsageError
from attpc_filter_web.catalogue import Catalogue, load_catalogue


def compare_with(catalogue: Catalogue, folder: Path) -> dict[str, Any]:
    """Compare the catalogue's tags with those of another output folder.

    Returns
    -------
    dict
        ``a`` and ``b``: tags of either. ``matrix``: events with tag ``a[i]`` and ``b[j]``.
        ``flips``: a dict an event whose tag differs: its row, both tags, both sets of scores; the
        most surely flipped first.

    Raises
    ------
    UsageError
        If the folders have no event in common, or the catalogue has no tags.
    """
    other = load_catalogue([folder])
    if not catalogue.tags or not other.tags:
        raise UsageError(f"--compare {folder}: both must be output folders of attpc-filter run")
    counts: Counter[tuple[str, str]] = Counter()
    flips = []
    for row, key in enumerate(zip(catalogue.run.tolist(), catalogue.event.tolist(), strict=True)):
        at = other.rows.get(key)
        if at is None:
            continue
        tags = str(catalogue.tag[row]), str(other.tag[at])
        counts[tags] += 1
        if tags[0] != tags[1] and catalogue.can_label[row]:
            flips.append((row, at, *tags))
    if not counts:
        raise UsageError(f"--compare {folder}: has none of the events to label")
    return {
        "a": catalogue.tags,
        "b": other.tags,
        "matrix": [[counts[a, b] for b in other.tags] for a in catalogue.tags],
        "flips": sorted(
            (
                {
                    "row": row,
                    "run": int(catalogue.run[row]),
                    "event": int(catalogue.event[row]),
                    "tag_a": tag_a,
                    "tag_b": tag_b,
                    "scores_a": _scores(catalogue, row),
                    "scores_b": _scores(other, at),
                }
                for row, at, tag_a, tag_b in flips
            ),
            key=lambda flip: -max([0.0, *flip["scores_b"].values()]),
        ),
    }


def _scores(catalogue: Catalogue, row: int) -> dict[str, float]:
    if not catalogue.is_scored[row]:
        return {}
    return dict(zip(catalogue.classes, catalogue.scores[row].tolist(), strict=True))
