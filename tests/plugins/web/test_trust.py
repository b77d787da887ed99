"""The trust sample's intervals cover the truth as often as they say."""

import numpy as np
import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter_web.trust import estimate

#: Events by tag (rows) and truth (columns: proton, carbon, noise), as a good model leaves them.
TRUTH = {"proton": (560, 20, 20), "carbon": (30, 260, 10), "noise": (40, 20, 1440)}
CLASSES = ("proton", "carbon", "noise")


@pytest.mark.parametrize("per_tag", [25, 80])
def test_intervals_cover_the_truth(per_tag: int) -> None:
    rng = np.random.default_rng(11)
    counts = {tag: sum(row) for tag, row in TRUTH.items()}
    pool = {tag: np.repeat(CLASSES, row) for tag, row in TRUTH.items()}
    covered: list[bool] = []
    for _ in range(200):
        sample, labels = [], {}
        for run, tag in enumerate(TRUTH):
            for event, label in enumerate(rng.permutation(pool[tag])[:per_tag]):
                sample.append((run, event, tag))
                labels[run, event] = str(label)
        for index, worth in enumerate(estimate(sample, labels, counts, CLASSES)):
            right = TRUTH[worth.name][index]
            purity = right / counts[worth.name]
            efficiency = right / sum(row[index] for row in TRUTH.values())
            covered.append(worth.purity[1] <= purity <= worth.purity[2])
            covered.append(worth.efficiency[1] <= efficiency <= worth.efficiency[2])
    assert 0.92 <= np.mean(covered) <= 0.985


def test_unsure_does_not_count_and_a_tag_without_labels_leaves_efficiency_open() -> None:
    sample = [(1, 1, "proton"), (1, 2, "proton"), (1, 3, "noise")]
    labels = {(1, 1): "proton", (1, 2): "unsure", (1, 3): "unsure"}
    proton, noise = estimate(sample, labels, {"proton": 10, "noise": 10}, ("proton", "noise"))
    assert proton.purity[0] == 1.0
    assert np.isnan(proton.efficiency[0])
    assert np.isnan(noise.purity[0])
