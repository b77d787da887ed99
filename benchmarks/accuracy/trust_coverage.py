"""How often the 95% intervals of `attpc-filter trust` hold the truth, by simulation.

    python benchmarks/accuracy/trust_coverage.py [--samplings 200] [--events 50] [--seed 1]

Each sampling has a population of its own: three classes in random shares, each tagged right in 85
to 98% of its events, the others getting another class or none. A sample is drawn of each tag,
labelled with the truth, and purity and efficiency of each class are estimated. Prints the share of
intervals that hold the truth.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from attpc_filter.trust import estimate_worth


def make_population(rng: np.random.Generator) -> NDArray[np.int64]:
    """Events by tag (three classes, then no class) and true class, shape (4, 3)."""
    n_events = int(rng.integers(3000, 8000))
    truth = rng.choice(3, n_events, p=rng.dirichlet([3, 2, 5]))
    share = np.zeros((3, 4))
    for number, right in enumerate(rng.uniform(0.85, 0.98, 3)):
        others = [tag for tag in range(4) if tag != number]
        share[number, number] = right
        share[number, others] = (1.0 - right) * rng.dirichlet([1, 1, 2])
    tag = (rng.random((n_events, 1)) > np.cumsum(share, axis=1)[truth]).sum(axis=1).clip(max=3)
    table = np.zeros((4, 3), np.int64)
    np.add.at(table, (tag, truth), 1)
    return table


def count_covered(n_samplings: int, n_events: int, seed: int) -> dict[str, tuple[int, int]]:
    """Intervals that hold the truth, and all, for purity and for efficiency."""
    rng = np.random.default_rng(seed)
    held = {"purity": 0, "efficiency": 0}
    for _ in range(n_samplings):
        table = make_population(rng)
        population = table.sum(axis=1)
        sampled = np.array(
            [rng.multivariate_hypergeometric(row, min(n_events, int(row.sum()))) for row in table]
        )
        n_labelled = sampled.sum(axis=1)
        for number in range(3):
            found = estimate_worth(sampled[:, number], n_labelled, population, number, rng)
            right = table[number, number]
            truth = right / population[number], right / table[:, number].sum()
            for name, value, interval in zip(held, truth, found, strict=True):
                held[name] += interval.low <= value <= interval.high
    return {name: (count, 3 * n_samplings) for name, count in held.items()}


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplings", type=int, default=200)
    parser.add_argument("--events", type=int, default=50, help="of each tag")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    covered = count_covered(options.samplings, options.events, options.seed)
    for name, (held, total) in covered.items():
        print(f"{name}: {held} of {total} intervals hold the truth ({held / total:.1%})")
    held, total = (sum(column) for column in zip(*covered.values(), strict=True))
    print(f"together: {held / total:.1%}")


if __name__ == "__main__":
    main()
