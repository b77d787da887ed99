"""Learning without labels: changes to tracks, training on them, starting from the result."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from attpc_export.cli import main
from attpc_export.config import AugmentSettings, Config
from attpc_export.data.augment import augment, change, make_pools
from attpc_export.data.labelled import Events, load_events
from attpc_export.data.tracks import Change, find_tracks
from attpc_export.training.fit import BEST_NAME
from numpy.typing import NDArray

from attpc_filter.cli import main as filter_main
from attpc_filter.output.tag_table import read_tags
from attpc_filter.rebuild.point_set import PointSetSettings
from attpc_filter.records import Hits
from tests.export.generated import CLASSES as GIVEN
from tests.export.generated import write_run

CLASSES = ["proton", "carbon", "noise"]
STILL = AugmentSettings(
    pile_up=0.0,
    overlay=0.0,
    most_dropped=0.0,
    most_random_hits=0,
    shift_z_mm=0.0,
    gain_event=0.0,
    gain_hit=0.0,
)
VIEW = PointSetSettings()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Events:
    data, labels = write_run(tmp_path_factory.mktemp("made"), 7, 60, seed=2)
    return load_events([data], [labels], CLASSES, Config().hits, Config().detector)


@pytest.fixture(scope="module")
def changed(events: Events) -> tuple[Hits, NDArray[np.int64], NDArray[np.bool_]]:
    """Copies of the particles with nothing varied but their tracks."""
    is_track = find_tracks(events.hits)
    rows = np.repeat(np.flatnonzero(events.label < 2), 20)
    hits, made = change(events, rows, is_track, STILL, VIEW, np.random.default_rng(0))
    return hits, made, rows


def test_a_track_is_found_where_there_is_one(events: Events) -> None:
    is_track = find_tracks(events.hits)
    share = np.add.reduceat(is_track, events.hits.offsets[:-1]) / events.hits.counts
    assert share[events.label < 2].mean() > 0.7  # all their hits are those of one arc
    assert share[events.label == 2].mean() < 0.05  # hits anywhere in the chamber


def test_every_change_is_what_it_is_called(
    events: Events, changed: tuple[Hits, NDArray[np.int64], NDArray[np.int64]]
) -> None:
    hits, made, rows = changed
    assert np.bincount(made, minlength=5).min() > 100
    before = events.hits
    for copy, (row, what) in enumerate(zip(rows, made, strict=True)):
        old = slice(before.offsets[row], before.offsets[row + 1])
        new = slice(hits.offsets[copy], hits.offsets[copy + 1])
        if what == Change.OVERLAID:
            assert new.stop - new.start >= old.stop - old.start + 8
            continue
        if what == Change.CUT:
            assert new.stop - new.start < old.stop - old.start
            continue
        a = before.x[old] + 1j * before.y[old]
        b = hits.x[new] + 1j * hits.y[new]
        distances = [abs(np.subtract.outer(place, place)) for place in (a, b)]
        track = find_tracks(before)[old]
        # inside a track no distance changes
        for mine, theirs in zip(*(d[track][:, track] for d in distances), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=0.02)
        # the sense in which it turns does only if it is mirrored
        sense = [np.sum((np.conj(p[track][:-1]) * p[track][1:]).imag) for p in (a, b)]
        if what != Change.MOVED:
            if events.label[row] == 0:  # the others are straight
                assert np.sign(sense[0] * sense[1]) == (-1 if what == Change.MIRRORED else 1)
            np.testing.assert_allclose(np.abs(a), np.abs(b), atol=0.02)
        else:
            way = abs(b[track].mean()) + abs(a[track].mean())
            assert way > 50.0 - 0.1


def test_moved_and_cut_particles_become_noise(events: Events) -> None:
    settings = replace(STILL, moved=0.4, cut=0.4)
    rows = np.repeat(np.arange(len(events)), 20)
    pools = make_pools(events, np.arange(len(events)), settings, CLASSES, "noise")
    hits, label = augment(events, rows, pools, settings, VIEW, np.random.default_rng(0))
    was = events.label[rows]
    assert (label[was == 2] == 2).all()
    share = (label[was != 2] == 2).mean()
    assert 0.7 < share <= 0.85  # those without a track stay what they are
    fewer = hits.counts < events.hits.counts[rows]
    assert (label[fewer] == 2).all()
    assert 0.3 < fewer[was != 2].mean() < 0.45


TINY: dict[str, Any] = {
    "name": "tiny",
    "classes": GIVEN,
    "points": {"n_points": 48},
    "model": {
        "kind": "points",
        "points": {"width": 16, "message": 4, "layers": 1, "harmonics": 4, "latent_size": 8},
    },
    "split": {"validation": 0.25},
    "augment": {"most_random_hits": 5},
    "fit": {"learn": "changes", "epochs": 2, "batch_size": 32, "learning_rate": 0.01},
    "head": {"kind": "none"},
}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Run folder of a training without labels, its run and the labels that it did not see."""
    folder = tmp_path_factory.mktemp("unlabelled")
    data, labels = write_run(folder / "data", 7, 120, seed=1)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    arguments = ["--data", str(data), "--out", str(folder / "run"), "--device", "cpu"]
    assert main(["train", str(folder / "tiny.yaml"), *arguments]) == 0
    return folder / "run", data, labels


def test_a_bundle_without_labels_is_uncertain_of_everything(
    unlabelled: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run_folder, data, _ = unlabelled
    assert main(["export", str(run_folder), "--out", str(tmp_path / "b.onnx")]) == 0
    out = tmp_path / "out"
    assert (
        filter_main(["run", str(data), "--model", str(tmp_path / "b.onnx"), "--out", str(out)]) == 0
    )
    table, _ = read_tags(next(out.glob("**/*.parquet")))
    assert set(table.column("tag").to_pylist()) == {"uncertain"}


def test_a_training_starts_from_the_weights_of_another(
    unlabelled: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, data, labels = unlabelled
    config = TINY | {"fit": {"epochs": 1, "learning_rate": 1e-9}, "head": {"draws": 0}}
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = ["--data", str(data), "--labels", str(labels), "--device", "cpu"]
    arguments += ["--start", str(run_folder), "--out", str(tmp_path / "run")]
    assert main(["train", str(path), *arguments]) == 0
    start, end = (torch.load(f / BEST_NAME) for f in (run_folder, tmp_path / "run"))
    same = [name for name in start if name.startswith("model.")]
    assert same
    for name in same:
        torch.testing.assert_close(start[name], end[name], atol=1e-6, rtol=1e-6)
    other = config | {"model": {"kind": "points"}}
    path.write_text(yaml.safe_dump(other))
    assert main(["train", str(path), *arguments[:-1], str(tmp_path / "other")]) == 2
    assert "holds another model" in capsys.readouterr().err
