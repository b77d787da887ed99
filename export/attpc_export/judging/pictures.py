"""Contact sheets: many events at a glance, each seen along the beam and from the side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attpc_export.data.labelled import Events, take_events
from attpc_filter.output.staging import Staging
from attpc_filter.rebuild.projection import ProjectionSettings, project

_SIDE = 72
_GAP = 6
_CAPTION = 12
#: Events side by side; the others of a row go below.
_ABREAST = 10
_VIEW = ProjectionSettings(views=("xy", "zr"), size=_SIDE, scale=8.0)
_INCHES_A_PIXEL = 1 / 80
#: Pixels, log(1 + charge) / 8, of the ends of the colours: 20 and 20,000 ADC.
_PALEST, _DARKEST = 0.38, 1.24
_LEGEND = (
    f"x, y: {-_VIEW.radius_mm:g} to {_VIEW.radius_mm:g} mm  |  z across: {_VIEW.z_low_mm:g} to"
    f" {_VIEW.z_high_mm:g} mm, radius up  |  charge: yellow 20 ADC, blue 20,000 ADC"
)


@dataclass(frozen=True, slots=True)
class Row:
    """Events that belong together on a contact sheet.

    Attributes
    ----------
    title : str
        Stands above it.
    rows : ndarray of int64, shape (n,)
        Its events, as rows of the events that are drawn.
    """

    title: str
    rows: NDArray[np.int64]


def write_contact_sheet(events: Events, sheet: Sequence[Row], path: Path) -> None:
    """Draw events in rows.

    Of each event the projection along the beam (x and y) stands beside the one of radius (up)
    against z; below are its run and event number. Colours go with the logarithm of the charge.

    Parameters
    ----------
    events : Events
        All events.
    sheet : sequence of Row
        Which are drawn where.
    path : Path
        PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across, down = 2 * _SIDE + 2 * _GAP, _SIDE + _CAPTION + _GAP
    most = min(max(len(row.rows) for row in sheet), _ABREAST)
    lines = [-(-len(row.rows) // _ABREAST) for row in sheet]
    height = sum(lines) * down + (len(sheet) + 1) * _CAPTION
    canvas = np.full((height, most * across), np.nan, np.float32)
    captions: list[tuple[float, float, str]] = [(0, _CAPTION - 2, _LEGEND)]
    for number, row in enumerate(sheet):
        first = sum(lines[:number]) * down + (number + 2) * _CAPTION
        captions.append((0, first - 2, row.title))
        for place, (index, image) in enumerate(
            zip(row.rows, project(take_events(events.hits, row.rows), _VIEW), strict=True)
        ):
            top, left = first + place // _ABREAST * down, place % _ABREAST * across
            for view, pixels in enumerate(image):
                start = left + view * (_SIDE + 1)
                canvas[top : top + _SIDE, start : start + _SIDE] = pixels[::-1]
            text = f"run {events.run[index]} event {events.event[index]}"
            captions.append((left, top + _SIDE + _CAPTION - 3, text))
    size = (canvas.shape[1] * _INCHES_A_PIXEL, canvas.shape[0] * _INCHES_A_PIXEL)
    figure = plt.figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    colours = plt.get_cmap("plasma_r")((canvas - _PALEST) / (_DARKEST - _PALEST))
    colours[canvas == 0.0, :3] = 0.95  # no hit
    colours[np.isnan(canvas)] = 1.0  # between the pictures
    axes.imshow(colours, interpolation="nearest")
    axes.set_axis_off()
    for x, y, text in captions:
        axes.text(x, y, text, fontsize=7)
    with Staging() as staging:
        figure.savefig(staging.path(path), dpi=160, format="png")
        staging.commit()
    plt.close(figure)
