"""Is the luck of the best on validation estimated rightly, and does test minus validation fall where it is said to?

    python benchmarks/optimism.py [--studies 2000]

Studies are simulated whose truth is known: curricula with true accuracies that lie so far apart, patients of one to
four cases that some curricula get right together, validation and test of a size. Each study chooses its best on
validation; `results.board.optimism` says how lucky that was and where the test score will lie. Printed is, over many
studies, the luck that there was (validation minus truth of the best), what was estimated, and how often the test score
lay within its interval. The exit code says whether that was 95 % of the time, +-3, in every setting: of two thousand
studies that is told to half a point, of four hundred to one and a half.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from dermsearch.metrics import REPLICATES, case_weights
from dermsearch.results.board.optimism import optimism

SETTINGS = [  # curricula, how far apart they truly are, patients, share of a case's luck that all curricula share
    (16, 0.00, 60, 0.5),
    (16, 0.02, 60, 0.5),
    (16, 0.05, 60, 0.5),
    (85, 0.00, 300, 0.5),
    (85, 0.01, 300, 0.8),
    (16, 0.00, 60, 0.0),
    (5, 0.03, 300, 0.8),
]
COVERED = (0.92, 0.98)


def study(rng: np.random.Generator, truth: np.ndarray, patients: int, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Which cases each curriculum got right, (cases, curricula), and whose the cases are."""
    from scipy.special import ndtri

    groups = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    # A patient is easy or hard, a case too, for all curricula or for one: the sum is standard normal.
    parts = [rng.normal(size=(patients, 1))[groups] * np.sqrt(0.3), rng.normal(size=(len(groups), 1)) * np.sqrt(0.7)]
    common, own = sum(parts), rng.normal(size=(len(groups), len(truth)))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own < ndtri(truth), groups


def scores(right: np.ndarray, groups: np.ndarray, resamples: int) -> np.ndarray:
    """(curricula, 1 + resamples) accuracies."""
    weights = case_weights(groups, resamples)
    return right.T @ weights / weights.sum(0)


def main() -> None:
    """Simulate, and print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    rng, good = np.random.default_rng(0), True
    print(f"{'curricula':>9}{'apart':>8}{'patients':>10}{'shared':>8}{'luck':>9}{'estimated':>11}{'covered':>9}")
    for curricula, apart, patients, shared in SETTINGS:
        luck, said, inside = [], [], []
        for _ in range(studies):
            truth = np.clip(0.6 + apart * rng.normal(size=curricula), 0.05, 0.95)
            validation = scores(*study(rng, truth, patients, shared), REPLICATES)
            test = scores(*study(rng, truth, patients, shared), REPLICATES)
            best = validation[:, 0].argmax()
            found = optimism(validation, float(test[best, 1:].std()))
            luck.append(validation[best, 0] - truth[best])
            said.append(found.value)
            inside.append(found.low <= validation[best, 0] - test[best, 0] <= found.high)
        covered = float(np.mean(inside))
        good &= COVERED[0] <= covered <= COVERED[1]
        told = f"{100 * np.mean(luck):>9.2f}{100 * np.mean(said):>11.2f}{100 * covered:>8.1f}%"
        print(f"{curricula:>9}{100 * apart:>8.0f}{patients:>10}{shared:>8.1f}{told}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
