"""The classes of an experiment: named once, any number from two, with PDG codes or without."""

from collections.abc import Sequence
from typing import Literal

from attpc_filter.errors import UsageError
from attpc_filter.score.bundle import EventClass

#: The role of a class in which nothing is of interest: pile-up and cut tracks become it, and
#: anomaly scores are judged by it.
NOISE = "noise"
#: Lowest score that makes an event a class, where nobody says otherwise.
DEFAULT_THRESHOLD = 0.4


def find_noise(classes: Sequence[EventClass]) -> str:
    """Name of the class whose role is noise; empty if there is none.

    A class that is called ``noise`` has the role without saying so.
    """
    for event_class in classes:
        if event_class.role == NOISE:
            return event_class.name
    return NOISE if any(event_class.name == NOISE for event_class in classes) else ""


def parse_classes(texts: Sequence[str]) -> tuple[EventClass, ...]:
    """Read classes as the command line has them.

    Parameters
    ----------
    texts : sequence of str
        ``NAME=PDG``, ``NAME``, or ``NAME=noise`` for the class whose role is noise.

    Raises
    ------
    UsageError
        If there are fewer than two, a name stands twice or a PDG code is no whole number.
    """
    classes = []
    for text in texts:
        name, _, value = text.partition("=")
        role: Literal["", "noise"] = "noise" if NOISE in (name, value) else ""
        pdg = "" if value == NOISE else value
        if not name or not (pdg.lstrip("-").isdigit() or not pdg):
            raise UsageError(
                f"--classes {text}: give NAME=PDG (proton=2212), NAME, or NAME=noise for the class"
                " of what is not wanted"
            )
        classes.append(EventClass(name, int(pdg or 0), DEFAULT_THRESHOLD, role))
    names = [event_class.name for event_class in classes]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--classes {' '.join(texts)}: at least two, each with a name of its own")
    return tuple(classes)


def parse_label_map(texts: Sequence[str]) -> dict[str, str]:
    """Read ``LABEL=CLASS`` pairs; an empty class leaves events with that label out.

    Raises
    ------
    UsageError
        If a text has no ``=`` or a label stands twice.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (label, equals, _) in zip(texts, pairs, strict=True):
        if not label or not equals:
            raise UsageError(f"--map {text}: give LABEL=CLASS, as in alpha=proton")
    found = {label: name for label, _, name in pairs}
    if len(found) < len(pairs):
        raise UsageError(f"--map {' '.join(texts)}: a label stands twice")
    return found
