"""Every option once: name, type, unit, default, help. YAML, command line and manifest follow.

The command line wins over the YAML file, the file over the defaults.
"""

import difflib
import math
import os
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from attpc_filter.errors import UsageError
from attpc_filter.root_options import ROLES, RootOptions
from attpc_filter.yaml_file import read_yaml

#: What an option is about; the command line, the YAML file and the reference show options so.
Group = Literal["Model", "Output", "Speed", "Detector", "Input", "ROOT files"]


def _option(
    group: Group, default: Any, help: str, unit: str = "", metavar: str | None = None
) -> Any:
    metadata = {"group": group, "help": help, "unit": unit, "metavar": metavar}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Config:
    """The options of ``attpc-filter run``; each one's help stands beside it."""

    model: str = _option(
        "Model", "default", "bundle that ships, or path of an ONNX file", metavar="NAME|FILE"
    )
    thresholds: dict[str, float] = _option(
        "Model",
        {},
        "thresholds in place of the model's, by class",
        "score, 0 to 1",
        "CLASS=SCORE",
    )

    streams: Literal["link", "copy", "none"] = _option(
        "Output",
        "link",
        "how streams hold their events: link points into the input file and takes no disk space;"
        " copy holds the events and checks the copy; none writes no streams",
    )
    keep_hits: bool = _option(
        "Output",
        False,
        "write the rebuilt hits of every event, to be scored again without the raw data",
    )
    keep_latents: bool = _option(
        "Output",
        False,
        "write the model's latent of every event, for a new head (attpc-filter retag --head)",
    )
    picture: bool = _option("Output", True, "draw summary.png")
    restart: bool = _option(
        "Output", False, "filter again what the output folder holds already of the runs named"
    )
    strict: bool = _option("Output", False, "exit with 1 if an event of any run was unreadable")

    device: str = _option(
        "Speed",
        "auto",
        "where the model runs: cpu; cuda or cuda:1, an error without such a GPU; auto, a GPU if"
        " there is one",
        metavar="DEVICE",
    )
    executor: str = _option(
        "Speed",
        "auto",
        "what tags the events: in-process, processes, or one that another distribution adds; auto,"
        " processes for more than one thread",
        metavar="NAME",
    )
    step_timeout: float = _option(
        "Speed",
        600.0,
        "a worker process without progress on a batch for so long is ended, and the event that did"
        " it is tagged unreadable; 0: never",
        "s",
        "SECONDS",
    )
    threads: int = _option(
        "Speed",
        0,
        "cores to work on, one process each; 0: all that this program may use",
        "threads",
        "N",
    )

    detector: str = _option(
        "Detector",
        "",
        "detector that ships, or path of a detector file (YAML); left out: the model's",
        "",
        "NAME|FILE",
    )
    micromegas_time_bucket: float | None = _option(
        "Detector",
        None,
        "time of hits at the micromegas, in place of the detector's",
        "time buckets",
        "TB",
    )
    window_time_bucket: float | None = _option(
        "Detector",
        None,
        "time of hits at the window, in place of the detector's",
        "time buckets",
        "TB",
    )
    detector_length: float | None = _option(
        "Detector", None, "length of the drift, in place of the detector's", "mm", "MM"
    )

    follow_links: bool = _option(
        "Input",
        False,
        "read what the links of an HDF5 run lead to, wherever it lies; otherwise only what lies in"
        " the folder of the run, and the run of a stream",
    )

    root_tree: str = _option(
        "ROOT files", "", "tree to read; left out: the tree that holds events", "", "NAME"
    )
    root_branch: str = _option(
        "ROOT files",
        "",
        "branch of AtRawEvent or AtEvent; left out: the branch of that class",
        "",
        "NAME",
    )
    root_columns: dict[str, str] = _option(
        "ROOT files",
        {},
        "columns of a plain tree, each by what it holds"
        f" ({', '.join(ROLES)}); time in time buckets, x, y, z in mm",
        "",
        "ROLE=COLUMN",
    )

    def __post_init__(self) -> None:
        _ = self.root_options  # refuses columns that make no events
        if self.threads < 0:
            raise UsageError(f"threads: {self.threads} is negative; 0 takes one a core")
        if not 0 <= self.step_timeout < math.inf:
            raise UsageError(f"step_timeout: {self.step_timeout} is no time in seconds, or 0")
        for name in ("micromegas_time_bucket", "window_time_bucket", "detector_length"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name}: {value} is no number to calibrate with")
        for name, threshold in self.thresholds.items():
            if not 0 <= threshold <= 1:
                raise UsageError(f"thresholds: {name}={threshold:g} is not between 0 and 1")

    @property
    def root_options(self) -> RootOptions:
        """What to read of ROOT files."""
        return RootOptions(self.root_tree, self.root_branch, self.root_columns)

    @property
    def n_threads(self) -> int:
        """Threads in effect: as asked for, or the cores that this process may use."""
        return self.threads or len(os.sched_getaffinity(0))


def make_config(file: Path | None, given: dict[str, Any]) -> Config:
    """The configuration from a YAML file, overridden by what was given on the command line.

    Raises
    ------
    UsageError
        If the file cannot be read, a key is unknown (naming the nearest known one) or a value has
        the wrong type.
    """
    values: dict[str, Any] = {}
    if file is not None:
        loaded = read_yaml(file)
        if loaded is not None and not isinstance(loaded, dict):
            raise UsageError(f"{file}: expected 'option: value' lines")
        known = [f.name for f in fields(Config)]
        for key, value in (loaded or {}).items():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1, 0.0)[0]
                raise UsageError(
                    f"{file}: unknown option {key!r}; the nearest known one is {near!r}"
                )
            try:
                values[key] = _checked(key, value)
            except UsageError as error:
                raise UsageError(f"{file}: {error}") from None
    values |= {key: _checked(key, value) for key, value in given.items()}
    return Config(**values)


def option_type(name: str) -> tuple[Any, bool]:
    """Type of an option without None, and whether it may be None (left out)."""
    hint = get_type_hints(Config)[name]
    parts = get_args(hint)
    if NoneType in parts:
        return next(part for part in parts if part is not NoneType), True
    return hint, False


def is_table(kind: Any) -> bool:
    """Whether an option is a table: something for each of several names."""
    return get_origin(kind) is dict


def _checked(name: str, value: Any) -> Any:
    kind, optional = option_type(name)
    if value is None and optional:
        return None
    if choices := () if is_table(kind) else get_args(kind):
        if value in choices:
            return value
        raise UsageError(f"{name}: {value!r} is none of {', '.join(map(str, choices))}")
    if kind == dict[str, float]:
        if isinstance(value, dict):
            numbers = value.values()
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers):
                return {str(key): float(number) for key, number in value.items()}
        raise UsageError(f"{name}: {value!r} is not a table of numbers by class")
    if kind == dict[str, str]:
        if isinstance(value, dict) and all(v and isinstance(v, str) for v in value.values()):
            return {str(key): text for key, text in value.items()}
        raise UsageError(f"{name}: {value!r} is not a table of names")
    if kind is Path and isinstance(value, str | Path) and value != "":
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind)
    raise UsageError(f"{name}: {value!r} is not of type {wanted}")


def options_by_group() -> dict[str, list[Field[Any]]]:
    """The options, in order, by what they are about."""
    groups: dict[str, list[Field[Any]]] = {name: [] for name in get_args(Group)}
    for option in fields(Config):
        groups[option.metadata["group"]].append(option)
    return groups


def default_of(option: Field[Any]) -> Any:
    """The default of an option."""
    return option.default if option.default_factory is MISSING else option.default_factory()


def example_yaml() -> str:
    """A YAML file with every option, its default, unit and help: all commented out."""
    lines = ["# attpc-filter run --config THIS_FILE: take the # from what you want to change.", ""]
    for group, options in options_by_group().items():
        lines += [f"# ---- {group}", ""]
        for option in options:
            lines += [*_example_lines(option), ""]
    return "\n".join(lines)


def _example_lines(option: Field[Any]) -> list[str]:
    kind, _ = option_type(option.name)
    unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
    choices = () if is_table(kind) else get_args(kind)
    default = default_of(option)
    shown = "null" if default is None else yaml.safe_dump(default, default_flow_style=True)
    return [
        f"# {option.metadata['help']}{unit}",
        *([f"# one of: {', '.join(choices)}"] if choices else []),
        f"#{option.name}: {shown.removesuffix('...' + chr(10)).strip()}",
    ]
