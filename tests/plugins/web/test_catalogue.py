"""Where events are found: runs that moved, hits that were kept, folders that cannot be used."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter_web.catalogue import load_catalogue

from attpc_filter import UsageError
from tests.conftest import command, environment
from tests.plugins.web.conftest import SAMPLE, StartServer


def test_a_run_that_moved_is_given_anew_or_read_from_the_hits_that_were_kept(
    tmp_path: Path, start: StartServer
) -> None:
    run = tmp_path / "raw" / "run_0101.h5"
    run.parent.mkdir()
    shutil.copy(SAMPLE, run)
    for name, options in {"plain": [], "hits": ["--keep-hits"]}.items():
        arguments = ["run", run, "--out", tmp_path / name, "--streams", "none", *options]
        subprocess.run(command(*arguments), check=True, env=environment(), capture_output=True)
    moved = tmp_path / "elsewhere" / "run_0101.h5"
    moved.parent.mkdir()
    run.rename(moved)

    with pytest.raises(UsageError, match=r"run_0101\.h5 is not where it was; give the run's file"):
        load_catalogue([tmp_path / "plain"])
    assert load_catalogue([tmp_path / "plain", moved]).sources[0].path == moved
    assert load_catalogue([tmp_path / "hits"]).sources[0].path.parent == tmp_path / "hits" / "hits"

    from tests.plugins.web.test_server import read_event

    servers = [
        start(*paths, "--labels", tmp_path / "l.sqlite")
        for paths in ([tmp_path / "plain", moved], [tmp_path / "hits"])
    ]
    for row in range(5):
        (raw, raw_hits), (kept, kept_hits) = (read_event(server, row) for server in servers)
        assert raw["fingerprint"] == kept["fingerprint"]
        assert (raw["has_traces"], kept["has_traces"]) == (True, False)
        for name, column in raw_hits.items():
            assert (column == kept_hits[name]).all(), name
