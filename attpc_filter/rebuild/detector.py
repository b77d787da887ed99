"""The detector that a run was taken with: its pads, its samples and its drift."""

import functools
import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.padplane import PadPlane, load_padplane

#: Samples that GET's electronics write of a pad, unless they are told to write fewer.
DEFAULT_SAMPLES = 512
#: The compiled loops go over a trace in blocks of this many samples.
SAMPLES_A_BLOCK = 32
MOST_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class ZCalibration:
    """From time bucket to z, by two references and a constant drift velocity.

    Attributes
    ----------
    micromegas_time_bucket, window_time_bucket : float
        Time buckets of hits at the micromegas and at the window.
    detector_length : float
        Length of the drift [mm].

    Raises
    ------
    ValueError
        If a number is not finite, or the two references are the same.
    """

    micromegas_time_bucket: float = 38.0
    window_time_bucket: float = 278.0
    detector_length: float = 1000.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise ValueError(f"{name}: {value} is not finite")
        if self.micromegas_time_bucket == self.window_time_bucket:
            raise ValueError(
                "micromegas_time_bucket and window_time_bucket are equal: no drift time"
            )


@dataclass(frozen=True)
class Detector:
    """All about the detector that decides which hits a run's traces give.

    Attributes
    ----------
    name : str
        Name of the detector.
    plane : PadPlane
        Positions and corrections of the pads.
    n_samples : int
        Samples of a trace; a multiple of 32.
    calibration : ZCalibration
        From time bucket to z.

    Raises
    ------
    ValueError
        If ``n_samples`` is no multiple of 32 between 32 and 4096.
    """

    name: str
    plane: PadPlane = field(repr=False)
    n_samples: int = DEFAULT_SAMPLES
    calibration: ZCalibration = field(default_factory=ZCalibration)

    def __post_init__(self) -> None:
        check_samples(self.n_samples)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the pads, the number of samples and the calibration; not of the name."""
        digest = hashlib.sha256(self.plane.sha256.encode())
        digest.update(np.int64(self.n_samples).tobytes())
        digest.update(np.array(list(asdict(self.calibration).values()), np.float64).tobytes())
        return digest.hexdigest()


def check_samples(n_samples: int) -> None:
    """Raise ValueError unless traces of so many samples can be rebuilt."""
    if not 0 < n_samples <= MOST_SAMPLES or n_samples % SAMPLES_A_BLOCK:
        raise ValueError(
            f"n_samples: {n_samples} is no multiple of {SAMPLES_A_BLOCK} between"
            f" {SAMPLES_A_BLOCK} and {MOST_SAMPLES}"
        )


def load_detector(
    pad_plane: Path | None = None,
    pad_gains: Path | None = None,
    pad_time_offsets: Path | None = None,
    n_samples: int = DEFAULT_SAMPLES,
    calibration: ZCalibration | None = None,
    name: str = "AT-TPC",
) -> Detector:
    """Load a detector, each of its tables from the user's file or the package's.

    Parameters
    ----------
    pad_plane, pad_gains, pad_time_offsets : Path, optional
        Tables of the pads, see :func:`attpc_filter.rebuild.padplane.load_padplane`.
    n_samples : int
        Samples of a trace.
    calibration : ZCalibration, optional
        From time bucket to z.
    name : str
        Name of the detector.

    Raises
    ------
    UsageError
        If a table cannot be read, or a number makes no sense.
    """
    plane = load_padplane(pad_plane, pad_gains, pad_time_offsets)
    try:
        return Detector(name, plane, n_samples, calibration or ZCalibration())
    except ValueError as error:
        raise UsageError(str(error)) from error


def z_of_time_bucket(
    time_bucket: NDArray[np.float32], calibration: ZCalibration
) -> NDArray[np.float32]:
    """Drift distance: z = (window - tb) / (window - micromegas) x length.

    Parameters
    ----------
    time_bucket : ndarray of float32
        Time buckets of the hits.
    calibration : ZCalibration
        The two references and the length.

    Returns
    -------
    ndarray of float32
        z [mm]; 0 at the window, the detector's length at the micromegas.
    """
    span = calibration.window_time_bucket - calibration.micromegas_time_bucket
    z = (calibration.window_time_bucket - time_bucket) * (calibration.detector_length / span)
    return z.astype(np.float32)
