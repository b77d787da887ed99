"""What to read of ROOT files: names that a user gives, where the file itself does not say it."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from attpc_filter.errors import UsageError

#: What a column of a plain tree can be.
ROLES = ("event", "pad", "x", "y", "z", "time", "charge", "integral", "adc")
_TRACE_ROLES = {"event", "pad", "adc"}


@dataclass(frozen=True, slots=True)
class RootOptions:
    """What to read of ROOT files; left empty, it is found by class.

    Attributes
    ----------
    tree : str
        Name of the tree.
    branch : str
        Name of the branch of ATTPCROOT events.
    columns : mapping of str to str
        Columns of a plain tree: by role (:data:`ROLES`), the name of the column that has it. Hits
        need x and y or pad, time or z, and charge; traces need pad and adc.

    Raises
    ------
    UsageError
        If a role is unknown (naming the nearest known one), or the columns make no events.
    """

    tree: str = ""
    branch: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = set(self.columns)
        for role in self.columns:
            if role not in ROLES:
                near = difflib.get_close_matches(role, ROLES, 1, 0.0)[0]
                raise UsageError(
                    f"root_columns: {role!r} is nothing that a column can be; the nearest known"
                    f" one is {near!r}, all are {', '.join(ROLES)}"
                )
        if not given:
            return
        if self.branch:
            raise UsageError(
                "root_branch names a branch of ATTPCROOT's events, root_columns columns of a plain"
                " tree: give one of them"
            )
        if "adc" in given:
            lacking = [] if "pad" in given else ["pad"]
            if beside := sorted(given - _TRACE_ROLES):
                raise UsageError(
                    f"root_columns: {beside[0]} is of hits, adc of traces; name either"
                )
        else:
            lacking = [] if {"x", "y"} <= given or "pad" in given else ["x and y (or pad)"]
            lacking += [] if given & {"time", "z"} else ["time (or z)"]
            lacking += [] if "charge" in given else ["charge"]
        if lacking:
            raise UsageError(
                f"root_columns: {', '.join(lacking)} not named; hits need x and y or pad, time or"
                " z, and charge; traces need pad and adc"
            )
