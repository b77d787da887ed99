"""Point clouds as Spyral's PointcloudPhase and attpc_engine's SpyralWriter write them."""

import re
from typing import Any

import h5py
from h5py import h5g

from attpc_filter.formats.hdf5.file import read_points
from attpc_filter.formats.hdf5.run import Hdf5Run
from attpc_filter.formats.points import pad_numbers, require_finite, without_warnings
from attpc_filter.formats.run import Allocate
from attpc_filter.records import Point

#: Spyral's columns are x, y, z, amplitude, integral, pad, time bucket, scale; ours in their places.
_TO_POINT_COLUMNS = [0, 1, 2, 6, 3, 4, 5]


class CloudRun(Hdf5Run):
    """Point clouds: ``cloud/cloud_N``, and ``cloud/labels_N`` where a simulation wrote them."""

    format_name = "Spyral point clouds"
    container = "cloud"
    event_name = re.compile(r"cloud_(\d+)")
    event_groups = ("cloud",)
    event_part = re.compile(r"cloud/(cloud|labels)_\d+")

    @classmethod
    def recognise(cls, file: h5py.File) -> bool:
        """Whether there is a group ``cloud``."""
        return isinstance(file.get("cloud"), h5py.Group)

    @classmethod
    def event_parts(cls, name: str) -> list[str]:
        """The cloud and its labels."""
        return [f"cloud/{name}", f"cloud/{name.replace('cloud', 'labels')}"]

    @without_warnings
    def _read(self, group: h5g.GroupID, name: bytes, allocate: Allocate) -> dict[str, Any]:
        cloud = read_points(group, name, columns=8)
        require_finite(cloud, range(8))
        points = cloud[:, _TO_POINT_COLUMNS]
        points[:, Point.PAD] = pad_numbers(points[:, Point.PAD])
        return {"points": points}


FORMATS = (CloudRun,)
