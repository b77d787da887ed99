"""What can be had without labels: clusters, and the same once a person has named them.

    python benchmarks/accuracy/no_labels.py --shared ar46 --out FOLDER [--seeds 1 2 3]
        [--students 0]

For each seed: the encoder of ``few_labels.py`` (shared if FOLDER is), clusters of its latent found
in the train part, judged on the test part: adjusted Rand index as they are; then with names, the
person being simulated: each cluster gets the class of most of the 20 events on its row of the
contact sheet. A student is trained with the labels that the named clusters of *full* are sure of;
on *clean*, where nothing is noise, it may choose among the other classes only. Writes
``no_labels.csv``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from attpc_export.data.labelled import UNLABELLED
from attpc_export.heads.clusters import load_clusters
from attpc_export.judging.run_bundle import ReadOptions, score_runs
from attpc_export.labels.name_clusters import (
    HEAD_NAME,
    choose_shown,
    score_clusters,
    write_clusters,
)
from few_labels import GROUP_COLUMN, Case, judge_scores, train_student, write_rows
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from attpc_filter.score.bundle import load_bundle

COLUMNS = ["seed", "level", "method", "clusters", "stability", "agreement", "ari", "macro_f1"]
COLUMNS += ["proton", "carbon", "noise"]


def scores_among(scores: NDArray[np.float32], label: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores of the classes that there are, made to add up to 1 again."""
    kept = scores * np.isin(np.arange(scores.shape[1]), label)
    return (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with train and test")
    parser.add_argument("--out", type=Path, required=True, help="keeps trainings")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--levels", nargs="+", default=["full", "clean"], choices=["full", "clean"])
    parser.add_argument("--students", type=int, default=1, help="0: none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(options.shared, options.out, "test")
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        folder, path = case.pretrain(seed)
        bundle = load_bundle(str(path))
        names = [c.name for c in bundle.contract.classes]
        made: Path | None = None
        for level in options.levels:
            train, test = options.shared / "train", options.shared / "test"
            data, judged = train / level, test / level
            labels = {"train": train / f"labels_{level}.csv", "test": test / f"labels_{level}.csv"}
            work = options.out / f"clusters_{level}_{seed}"
            found = write_clusters(str(path), [data], work, seed=seed)
            head = load_clusters(work / HEAD_NAME)
            known = score_runs(bundle, [data], [labels["train"]])
            chosen = choose_shown(score_clusters(head, known.latent), seed)
            named = [
                names[np.bincount(known.events.label[shown], minlength=len(names)).argmax()]
                for shown in chosen
            ]
            place = {"seed": seed, "level": level, "clusters": len(named)}
            place |= {"stability": found.stability.get(len(named), float("nan"))}
            place["agreement"] = found.agreement

            tested = score_runs(
                bundle, [judged], [labels["test"]], ReadOptions(group_column=GROUP_COLUMN)
            )
            score = score_clusters(head, tested.latent)
            truth = tested.events.label
            ari = adjusted_rand_score(truth, score.argmax(axis=1))
            rows.append(place | {"method": "clusters", "ari": ari})
            class_of = np.eye(len(names))[[names.index(name) for name in named]]
            judged_as = {"named": (bundle, tested, (score @ class_of).astype(np.float32))}
            if options.students and level == "full":
                nothing = np.full(len(known.events), UNLABELLED, np.int64)
                scores = (score_clusters(head, known.latent) @ class_of).astype(np.float32)
                made = train_student(known, nothing, scores, case, folder, seed, work / "student")
            if made:
                student = load_bundle(str(made))
                seen = score_runs(
                    student, [judged], [labels["test"]], ReadOptions(group_column=GROUP_COLUMN)
                )
                judged_as["student"] = (student, seen, scores_among(seen.scores, truth))
            for method, (model, events, found_scores) in judged_as.items():
                quality = judge_scores(model, events, found_scores)
                ari = adjusted_rand_score(events.events.label, found_scores.argmax(axis=1))
                rows.append(place | {"method": method, "ari": ari, **quality})
            write_rows(options.table, rows, COLUMNS)
            for row in rows[-1 - len(judged_as) :]:
                print(row, flush=True)


if __name__ == "__main__":
    main()
