"""Copies of simulated point clouds with more noise hits, to see what that costs a bundle.

    python benchmarks/accuracy/noisier.py ar46/test/full --out FOLDER [--factor 1.8]
    attpc-export evaluate default accurate --data ar46/test/full FOLDER/full \
        --labels ar46/test/labels_full.csv

Each event gets, on top of its own noise hits (random hits and cross-talk that lie over what it
shows, by the truth in ``labels_N``), as many of other events' noise hits as make them the factor
times as many.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

#: Origins of a hit, in ``labels_N``, that are noise: none, and overlay.
NOISE = (0, 1)


def main() -> None:
    """Write the copies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of runs in Spyral's layout, with labels_N")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--factor", type=float, default=1.8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    target = options.out / options.data.name
    target.mkdir(parents=True, exist_ok=True)
    before = after = 0
    for path in sorted(options.data.glob("*.h5")):
        with h5py.File(path) as source, h5py.File(target / path.name, "w") as copy:
            group, clouds = source["cloud"], copy.create_group("cloud")
            clouds.attrs.update(group.attrs)
            names = [name for name in group if name.startswith("cloud_")]
            numbers = [name.removeprefix("cloud_") for name in names]
            is_noise = {n: np.isin(group[f"labels_{n}"][:], NOISE) for n in numbers}
            pool = np.concatenate([group[f"cloud_{n}"][:][is_noise[n]] for n in numbers])
            first = np.cumsum([0, *(is_noise[n].sum() for n in numbers)])
            for index, number in enumerate(numbers):
                hits = group[f"cloud_{number}"][:]
                wanted = round((options.factor - 1.0) * int(is_noise[number].sum()))
                # hits of one event after the other, so that bursts stay bursts
                start = int(rng.integers(first[-1]))
                if first[index] <= start < first[index + 1]:
                    start = int(first[index + 1])
                more = pool[np.arange(start, start + wanted) % len(pool)]
                joined = np.concatenate([hits, more])
                clouds.create_dataset(f"cloud_{number}", data=joined[np.argsort(joined[:, 2])])
                clouds[f"cloud_{number}"].attrs.update(group[f"cloud_{number}"].attrs)
                before += int(is_noise[number].sum())
                after += int(is_noise[number].sum()) + wanted
    print(f"{target}: {after} noise hits, {before} before: {after / before:.2f} times as many")


if __name__ == "__main__":
    main()
