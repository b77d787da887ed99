"""What ROOT writes objects in: blocks with a byte count and a version, numbers, short texts."""

from attpc_filter.formats.root import kernels
from attpc_filter.formats.root.file import Span
from attpc_filter.formats.run import UnreadableEvent

_CLONES_NAME = b"\x0cTClonesArray\0"


def open_clones(span: Span) -> tuple[str, int, int, int]:
    """Read the head of a TClonesArray.

    Returns
    -------
    kind : str
        Class and version of what it holds: ``AtRawEvent;7``.
    at, end : int
        Where the head ends, and the array.
    bits : int
        Its bits.

    Raises
    ------
    UnreadableEvent
        If it is none.
    """
    at = span.start
    if span.data[at : at + len(_CLONES_NAME)].tobytes() == _CLONES_NAME:
        at += len(_CLONES_NAME)  # some branches lead each object with the name of its class
    end, _ = open_block(span, at, span.stop, "TClonesArray")
    at += 6
    if at + 10 > end:
        raise UnreadableEvent("the TClonesArray is cut short")
    bits = number(span, at + 6, 4)
    at += 12 if bits & kernels.REFERENCED else 10
    _, at = text(span, at, end)
    kind, at = text(span, at, end)
    return kind, at, end, bits


def open_block(span: Span, at: int, limit: int, what: str) -> tuple[int, int]:
    """Where the block at ``at`` ends, and the version that it begins with."""
    if at + 6 > limit:
        raise UnreadableEvent(f"{what}: it is cut short")
    head = number(span, at, 4)
    if head >> 30 != 1:
        raise UnreadableEvent(f"{what}: it has no byte count")
    end = at + 4 + (head & 0x3FFFFFFF)
    if not at + 6 <= end <= limit:
        raise UnreadableEvent(f"{what}: it reaches beyond its end")
    return end, number(span, at + 4, 2)


def number(span: Span, at: int, size: int) -> int:
    """The number in so many bytes."""
    return int.from_bytes(span.data[at : at + size].tobytes(), "big")


def text(span: Span, at: int, limit: int) -> tuple[str, int]:
    """A short TString, and where it ends."""
    length = int(span.data[at]) if at < limit else 255
    stop = at + 1 + length
    if length == 255 or stop > limit:
        raise UnreadableEvent("the TClonesArray is cut short")
    return span.data[at + 1 : stop].tobytes().decode("ascii", "replace"), stop
