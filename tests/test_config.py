"""Options: declared once, read from YAML, the same in the file that ``config`` prints."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attpc_filter.config import Config, example_yaml, make_config
from attpc_filter.errors import UsageError

#: A value of each option that is not its default.
OTHER: dict[str, Any] = {
    "model": "other",
    "device": "cpu",
    "streams": "copy",
    "thresholds": {"proton": 0.75},
    "strict": True,
    "restart": True,
    "picture": False,
    "threads": 3,
    "detector": "detector.yaml",
    "micromegas_time_bucket": 10,
    "window_time_bucket": 400.5,
    "detector_length": 1200.0,
    "root_tree": "hits",
    "root_branch": "AtRawEvent",
    "root_columns": {},
}


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def test_every_option_can_be_set_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "filter.yaml"
    known = {name: OTHER[name] for name in (f.name for f in fields(Config)) if name in OTHER}
    file.write_text(yaml.safe_dump(known))
    config = make_config(file, {})
    for name, value in known.items():
        assert _written(getattr(config, name)) == value


def test_what_is_given_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text("threads: 3\nstreams: copy\n")
    config = make_config(file, {"threads": 5})
    assert (config.threads, config.streams) == (5, "copy")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n"])
def test_an_empty_file_changes_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "filter.yaml"
    file.write_text(text)
    assert make_config(file, {}) == Config()


def test_the_example_has_every_option_with_its_default() -> None:
    lines = [line[1:] for line in example_yaml().splitlines() if line[:2] not in ("# ", "")]
    values = yaml.safe_load("\n".join(lines))
    assert set(values) == {option.name for option in fields(Config)}
    defaults = Config()
    for name, value in values.items():
        assert value == _written(getattr(defaults, name))
    for option in fields(Config):
        assert option.metadata["help"] in example_yaml()


@given(
    key=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12),
)
def test_an_unknown_key_is_never_taken(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if key in {option.name for option in fields(Config)}:
        return
    file = tmp_path_factory.getbasetemp() / "unknown.yaml"
    file.write_text(yaml.safe_dump({key: 1}))
    with pytest.raises(UsageError) as caught:
        make_config(file, {})
    named = str(caught.value).split("nearest known one is ")[1].strip("'")
    assert named in {option.name for option in fields(Config)}


@given(
    name=st.sampled_from(sorted(OTHER)),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5),
        st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.text()),
    ),
)  # fmt: skip
def test_any_value_is_taken_or_refused_with_the_option_named(name: str, value: Any) -> None:
    try:
        taken = getattr(make_config(None, {name: value}), name)
    except UsageError as error:
        said = str(error)
    else:
        assert taken == (Path(value) if isinstance(taken, Path) else value)
        return
    assert name in said


def test_threads_by_default_are_those_of_the_machine() -> None:
    assert Config().n_threads >= 1
    assert Config(threads=7).n_threads == 7
