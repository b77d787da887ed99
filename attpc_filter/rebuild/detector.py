"""The detector that a run was taken with: its pads, its samples and its drift."""

import functools
import hashlib
import math
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from attpc_filter.rebuild.padplane import PadPlane

#: Samples that GET's electronics write of a pad, unless they are told to write fewer.
DEFAULT_SAMPLES = 512
#: The baseline of a shorter trace could not be told from its peaks.
FEWEST_SAMPLES = 32
MOST_SAMPLES = 4096

#: Positions along one axis [mm].
Coordinates = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True)
class BeamFrame:
    """Where the beam runs in the detector, and which way its tracks turn.

    Models know events whose beam comes in at z = 0 and runs along the z axis, in a field of one
    sense. Hits are brought into that frame: first z is reversed, then the beam axis is moved to
    x = y = 0 and turned onto the z axis, then hits are mirrored.

    Attributes
    ----------
    tilt_deg : float
        Angle between the beam and the z axis [degrees].
    azimuth_deg : float
        Where the beam leans to, as it goes to higher z: 0 towards +x, 90 towards +y [degrees].
    x_mm, y_mm : float
        Where the beam crosses z = 0 [mm].
    is_mirrored : bool
        Tracks turn the other way than in the training data: the field has the other sense. y
        becomes -y.
    z_is_reversed : bool
        The beam comes in where the calibration has the whole length. z becomes length - z.
    """

    tilt_deg: float = 0.0
    azimuth_deg: float = 0.0
    x_mm: float = 0.0
    y_mm: float = 0.0
    is_mirrored: bool = False
    z_is_reversed: bool = False

    def __post_init__(self) -> None:
        for name in ("tilt_deg", "azimuth_deg", "x_mm", "y_mm"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"beam: {name} is not finite")
        if not 0 <= self.tilt_deg < 90:
            raise ValueError(f"beam: tilt_deg {self.tilt_deg:g} is not in 0 to 90")

    @property
    def is_plain(self) -> bool:
        """Whether hits are in the models' frame as they are."""
        shifts = (self.tilt_deg, self.x_mm, self.y_mm)
        return not (any(shifts) or self.is_mirrored or self.z_is_reversed)

    def to_model(
        self, x: Coordinates, y: Coordinates, z: Coordinates, length_mm: float
    ) -> tuple[Coordinates, Coordinates, Coordinates]:
        """Bring positions into the models' frame.

        Parameters
        ----------
        x, y, z : ndarray of float32, shape (n,)
            Positions in the detector [mm].
        length_mm : float
            Length of the drift [mm].

        Returns
        -------
        tuple of ndarray of float32
            x, y and z [mm]; the same arrays if the frame is plain.
        """
        if self.is_plain:
            return x, y, z
        places = np.stack([x, y, z]).astype(np.float64)
        if self.z_is_reversed:
            places[2] = length_mm - places[2]
        places -= np.array([[self.x_mm], [self.y_mm], [0.0]])
        places = self._rotation() @ places
        if self.is_mirrored:
            places[1] *= -1
        x, y, z = places.astype(np.float32)
        return x, y, z

    def _rotation(self) -> NDArray[np.float64]:
        """The smallest rotation that turns the beam onto the z axis, shape (3, 3)."""
        tilt, azimuth = math.radians(self.tilt_deg), math.radians(self.azimuth_deg)
        to_azimuth = np.array(
            [
                [math.cos(azimuth), math.sin(azimuth), 0],
                [-math.sin(azimuth), math.cos(azimuth), 0],
                [0, 0, 1],
            ]
        )
        upright = np.array(
            [
                [math.cos(tilt), 0, -math.sin(tilt)],
                [0, 1, 0],
                [math.sin(tilt), 0, math.cos(tilt)],
            ]
        )
        rotation: NDArray[np.float64] = to_azimuth.T @ upright @ to_azimuth
        return rotation


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
        Samples of a trace, 32 to 4096.
    calibration : ZCalibration
        From time bucket to z.
    frame : BeamFrame
        Where the beam runs.
    channels : ndarray of int64, shape (n_pads, 5), or None
        CoBo, AsAd, AGET, channel and pad; None if it is not known which channel reads which pad.
    field_t : float or None
        Magnetic field [T], if it is known.
    noise_adc : float or None
        Standard deviation of a trace without a signal [ADC], if it is known.
    absent : tuple of str
        Columns that the table of its pads does not have.

    Raises
    ------
    ValueError
        If ``n_samples`` is not between 32 and 4096.
    """

    name: str
    plane: PadPlane = field(repr=False)
    n_samples: int = DEFAULT_SAMPLES
    calibration: ZCalibration = field(default_factory=ZCalibration)
    frame: BeamFrame = field(default_factory=BeamFrame)
    channels: NDArray[np.int64] | None = field(default=None, repr=False)
    field_t: float | None = None
    noise_adc: float | None = None
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_samples(self.n_samples)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of pads, samples, calibration and frame: of all that decides the hits."""
        digest = hashlib.sha256(self.plane.sha256.encode())
        digest.update(np.int64(self.n_samples).tobytes())
        digest.update(np.array(list(asdict(self.calibration).values()), np.float64).tobytes())
        if not self.frame.is_plain:
            digest.update(np.array(list(asdict(self.frame).values()), np.float64).tobytes())
        return digest.hexdigest()


def check_samples(n_samples: int) -> None:
    """Raise ValueError unless traces of this number of samples can be rebuilt."""
    if not FEWEST_SAMPLES <= n_samples <= MOST_SAMPLES:
        raise ValueError(
            f"n_samples: {n_samples} is not between {FEWEST_SAMPLES} and {MOST_SAMPLES}"
        )


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
