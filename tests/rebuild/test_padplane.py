"""The pad plane: the shipped table against Spyral's, and tables of users."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.padplane import load_padplane


def test_the_shipped_table_is_spyrals(spyral: ModuleType) -> None:
    plane = load_padplane()
    pads = [spyral.PAD_MAP.get_pad_data(number) for number in range(10240)]
    assert len(plane.x) == 10240
    assert spyral.PAD_MAP.get_pad_data(10240) is None
    for name in ("x", "y", "time_offset", "scale"):
        expected = np.array([getattr(pad, name) for pad in pads])
        np.testing.assert_allclose(getattr(plane, name), expected, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.flatnonzero(plane.beam), sorted(spyral.LEGACY_BEAM_PADS))
    assert (plane.gain == 1).all()


def test_the_plane_is_that_of_the_detector() -> None:
    """10,240 triangles of two sizes, the small ones inside, within 270 mm or so."""
    plane = load_padplane()
    radius = np.hypot(plane.x, plane.y)
    assert 260 < radius.max() < 290
    small = plane.scale < 1
    assert set(np.unique(plane.scale)) == {0.5, 1.0}
    assert radius[small].max() < radius.max() / 1.5
    assert len(set(zip(plane.x, plane.y, strict=True))) == 10240


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_plane_of_ones_own(tmp_path: Path) -> None:
    table = _write(tmp_path / "pads.csv", "x,y,gain,beam\n1.5,-2,2,0\n3,4,0.5,1\n")
    plane = load_padplane(table)
    np.testing.assert_array_equal(plane.x, [1.5, 3.0])
    np.testing.assert_array_equal(plane.y, [-2.0, 4.0])
    np.testing.assert_array_equal(plane.gain, [2.0, 0.5])
    np.testing.assert_array_equal(plane.beam, [False, True])
    np.testing.assert_array_equal(plane.time_offset, [0, 0])
    np.testing.assert_array_equal(plane.scale, [1, 1])


def test_gains_and_time_offsets_replace_those_of_the_table(tmp_path: Path) -> None:
    table = _write(tmp_path / "pads.csv", "x_mm,y_mm,gain\n1,2,9\n3,4,9\n")
    gains = _write(tmp_path / "gains.csv", "pad,gain\n0,1.25\n1,0.75\n")
    offsets = _write(tmp_path / "times.csv", "offset\r\n-1.5\r\n2\r\n\r\n")
    plane = load_padplane(table, gains, offsets)
    np.testing.assert_array_equal(plane.gain, [1.25, 0.75])
    np.testing.assert_array_equal(plane.time_offset, [-1.5, 2.0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("\n\n", "header"),
        ("x_mm,y_mm\n", "numbers"),
        ("x_mm,z_mm\n1,2\n", "y_mm"),
        ("x_mm,y_mm\n1\n", "2 numbers"),
        ("x_mm,y_mm\n1,2\n3\n", "numbers"),
        ("x_mm,y_mm\n1,two\n", "numbers"),
        ("x_mm,y_mm\n1,nan\n", "row 2 is not finite"),
        ("x_mm,y_mm\n1,2\n1e400,2\n", "row 3 is not finite"),
    ],
)
def test_what_is_no_table(text: str, said: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "pads.csv", text)
    with pytest.raises(UsageError) as caught:
        load_padplane(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_gains_of_another_plane(tmp_path: Path) -> None:
    gains = _write(tmp_path / "gains.csv", "gain\n1\n1\n1\n")
    with pytest.raises(UsageError, match="3 rows for 10240 pads"):
        load_padplane(gains=gains)
