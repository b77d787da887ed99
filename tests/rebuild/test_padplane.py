"""The pad plane: the shipped table against Spyral's, and tables of users."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from attpc_filter.errors import UsageError
from attpc_filter.rebuild.padplane import load_padplane, read_pad_table


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


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_and_columns_in_any_order(tmp_path: Path) -> None:
    text = "beam,y,pad,gain,x\n1,4,1,0.5,3\n0,-2,0,2,1.5\n"
    plane = read_pad_table(write(tmp_path / "pads.csv", text)).plane
    np.testing.assert_array_equal(plane.x, [1.5, 3.0])
    np.testing.assert_array_equal(plane.y, [-2.0, 4.0])
    np.testing.assert_array_equal(plane.gain, [2.0, 0.5])
    np.testing.assert_array_equal(plane.beam, [False, True])
    np.testing.assert_array_equal(plane.time_offset, [0, 0])
    np.testing.assert_array_equal(plane.scale, [1, 1])


def test_optional_columns_that_are_absent_are_named(tmp_path: Path) -> None:
    table = read_pad_table(write(tmp_path / "pads.csv", "pad,x,y,gain\n0,1,2,3\n"))
    assert table.absent == ("size", "cobo", "asad", "aget", "channel", "time_offset", "beam")
    assert table.channels is None


def test_channels(tmp_path: Path) -> None:
    text = "pad,x,y,cobo,asad,aget,channel\n1,1,2,10,3,0,67\n0,3,4,0,0,3,1\n"
    table = read_pad_table(write(tmp_path / "pads.csv", text))
    assert table.channels is not None
    assert table.channels.tolist() == [[0, 0, 3, 1, 0], [10, 3, 0, 67, 1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; it needs a header with pad, x, y"),
        ("pad,x,y\n", "a header without rows"),
        ("pad,x\n0,1\n", "no column 'y'"),
        ("pad,x,y,gian\n0,1,2,1\n", "unknown column 'gian'; the nearest known one is 'gain'"),
        ("pad,x,y,x\n0,1,2,1\n", "the column 'x' is there 2 times"),
        ("pad,x,y\n0,1,2\n1,1\n", "row 3: 2 values for 3 columns"),
        ("pad,x,y\n0,1,two\n", "row 2: y 'two' is no number"),
        ("pad,x,y\n0,1,2\n1,nan,2\n", "row 3: x is not finite"),
        ("pad,x,y\n0,1,2\n\n1,3,4\n1,5,6\n", "row 5: pad 1 stands in row 4 already; remove one"),
        ("pad,x,y\n1,1,2\n2,3,4\n", "row 3: pad 2 is none of 0 to 1, and pad 0 is missing"),
        ("pad,x,y\n0.5,1,2\n", "row 2: pad 0.5 is no whole number"),
        ("pad,x,y\n0,-9999,-9999\n", "row 2: pad 0 at (-9999, -9999) mm lies off the plane"),
        ("pad,x,y\n0,1,2\n1,1,2\n", "rows 2 and 3: pads 0 and 1 lie at the same place"),
        ("pad,x,y,gain\n0,1,2,0\n", "row 2: gain 0 is not positive"),
        ("pad,x,y,beam\n0,1,2,2\n", "row 2: beam 2 is no whole number from 0 to 1"),
        ("pad,x,y,cobo,aget\n0,1,2,0,0\n", "cobo, aget without asad, channel"),
        ("pad,x,y,cobo,asad,aget,channel\n0,1,2,0,0,4,1\n", "row 2: aget 4 is no whole number"),
        ("pad,x,y,cobo,asad,aget,channel\n0,1,2,0,0,0,45\n", "row 2: channel 45 follows the fixed"),
        (
            "pad,x,y,cobo,asad,aget,channel\n1,1,2,0,0,0,1\n0,3,2,0,0,0,1\n",
            "one channel reads two pads, 0 and 1",
        ),
    ],
)
def test_what_is_no_table(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "pads.csv", text)
    with pytest.raises(UsageError) as caught:
        read_pad_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_number_of_pads(tmp_path: Path) -> None:
    path = write(tmp_path / "pads.csv", "pad,x,y\n0,1,2\n1,3,4\n")
    with pytest.raises(UsageError, match="2 rows, the detector has 10240 pads; complete the table"):
        read_pad_table(path, 10240)
