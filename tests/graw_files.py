"""Writes GET's files, after what their fields mean; nothing of ``attpc_filter`` takes part.

A frame is of one event and one AsAd. Its header counts in units of 64 or 256 bytes; then come the
samples, four bytes each in partial readout (AGET, channel, time bucket, sample), two in full
readout (AGET, sample: channel and bucket follow by counting the 68 channels of an AGET), and zeros
up to the next unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FPN = (11, 22, 45, 56)
N_CHANNELS, N_BUCKETS = 68, 512

#: Samples of one AsAd: 512 for each AGET and channel that was read out.
Samples = Mapping[tuple[int, int], NDArray[np.int16]]


@dataclass(frozen=True)
class Style:
    """How frames are written."""

    readout: Literal["partial", "full"] = "partial"
    unit: int = 256
    order: Literal["big", "little"] = "big"
    #: Leave samples of 0 out, as a zero suppression does.
    suppress: bool = False


def frame(
    event: int, cobo: int, asad: int, samples: Samples, style: Style = Style(), time: int = 0
) -> bytes:
    """One frame. In full readout, channels that have no samples read 0."""
    body = _full(samples, style) if style.readout == "full" else _partial(samples, style)
    kind, item_size = (2, 2) if style.readout == "full" else (1, 4)
    header_units = 256 // style.unit
    header = bytearray(256)
    n_units = header_units - (-len(body) // style.unit)

    def put(at: int, size: int, value: int) -> None:
        header[at : at + size] = value.to_bytes(size, style.order)

    header[0] = style.unit.bit_length() - 1 | (0x80 if style.order == "little" else 0)
    put(1, 3, n_units)
    put(5, 2, kind)
    header[7] = 5
    put(8, 2, header_units)
    put(10, 2, item_size)
    put(12, 4, len(body) // item_size)
    put(16, 6, time)
    put(22, 4, event & 0xFFFFFFFF)
    header[26], header[27] = cobo, asad
    return bytes(header) + body + bytes(n_units * style.unit - 256 - len(body))


def _partial(samples: Samples, style: Style) -> bytes:
    if not samples:
        return b""
    keys = sorted(samples)
    address = np.array([aget << 30 | channel << 23 for aget, channel in keys], np.uint32)
    values = np.array([samples[key] for key in keys], np.uint32).T  # bucket after bucket
    words = address | np.arange(N_BUCKETS, dtype=np.uint32)[:, None] << 14 | values
    chosen = words[values != 0] if style.suppress else words.ravel()
    return chosen.astype(">u4" if style.order == "big" else "<u4").tobytes()


def _full(samples: Samples, style: Style) -> bytes:
    items = np.zeros((N_BUCKETS, N_CHANNELS // 2, 4, 2), np.uint16)  # two channels an AGET in turn
    for aget in range(4):
        items[:, :, aget, :] = aget << 14
    for (aget, channel), values in samples.items():
        items[:, channel // 2, aget, channel % 2] |= values.astype(np.uint16)
    return items.astype(">u2" if style.order == "big" else "<u2").tobytes()


def fixed_pattern_noise(seed: int) -> dict[tuple[int, int], NDArray[np.int16]]:
    """Samples of the four channels of each AGET that belong to no pad."""
    rng = np.random.default_rng([68, seed])
    keys = [(aget, channel) for aget in range(4) for channel in FPN]
    return {key: rng.integers(200, 600, N_BUCKETS).astype(np.int16) for key in keys}


def split(
    traces: NDArray[np.int16], asads: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[tuple[int, int], NDArray[np.int16]]]:
    """The rows of a trace matrix by AsAd, then by AGET and channel, as their columns say."""
    parts: dict[tuple[int, int], dict[tuple[int, int], NDArray[np.int16]]] = {
        asad: {} for asad in asads
    }
    for row in traces:
        cobo, asad, aget, channel = row[:4].tolist()
        parts[cobo, asad][aget, channel] = row[5:]
    return parts


def write_run(
    folder: Path,
    events: Mapping[int, NDArray[np.int16]],
    style: Style = Style(),
    *,
    files_an_asad: int = 1,
    asads: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write a run: for each AsAd its files, which every event has a frame in.

    Parameters
    ----------
    folder : Path
        Where to write; made if it is not there.
    events : mapping of int to ndarray of int16, shape (n, 517)
        Trace matrices by GET's event number.
    style : Style
        How.
    files_an_asad : int
        Over how many files the frames of an AsAd are spread.
    asads : sequence of (int, int)
        CoBo and AsAd of those that are there; left out: those that occur.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {(int(row[0]), int(row[1])) for traces in events.values() for row in traces}
    every = sorted(set(asads) | found)
    frames: dict[tuple[int, int], list[bytes]] = {asad: [] for asad in every}
    for event, traces in events.items():
        for (cobo, asad), samples in split(traces, every).items():
            noise = fixed_pattern_noise(event)
            time = 1000 * event + (7 if cobo == 10 else 0)
            content = frame(event, cobo, asad, {**samples, **noise}, style, time)
            frames[cobo, asad].append(content)
    for (cobo, asad), parts in frames.items():
        for number, some in enumerate(np.array_split(np.arange(len(parts)), files_an_asad)):
            name = f"CoBo{cobo}_AsAd{asad}_2026-01-02T03_04_05.{asad}{cobo:02d}_{number:04d}.graw"
            (folder / name).write_bytes(b"".join(parts[index] for index in some))
    return folder
