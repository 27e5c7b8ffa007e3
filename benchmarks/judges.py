"""Which of a study's fits is the better classifier, on the same patients, seeds and encoders?

    python benchmarks/judges.py RESULTS --against source_only [--metric balanced_accuracy] [--label mean]

A leaderboard compares curricula by one judge; this compares the judges, for each data set and behind each curriculum:
mean over seeds with its 95 % interval, and the paired difference to the fit of `--against`, whose interval holds
patients and seeds as a leaderboard's does. Predictions must have been kept.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from statistics import fmean

import numpy as np

from dermsearch.metrics import AVERAGED, case_weights
from dermsearch.results import load
from dermsearch.results.board.intervals import Spread
from dermsearch.results.board.paired import Values, by_replicate, patients, together
from dermsearch.results.tables.measure import Measure
from dermsearch.results.tables.said import said
from dermsearch.results.tables.schema import Results


def found(results: Results, metric: str, label: str) -> dict[tuple[str, str], dict[str, Values]]:
    """By data set and curriculum every judge's scores: of each seed itself, then on every resample of patients."""
    told: dict[tuple[str, str], dict[str, dict[tuple[int, int], np.ndarray]]] = {}
    kept = results.pandas("predictions")[["protocol", "data", "labelled"]].drop_duplicates()
    for protocol, data, labelled in kept.itertuples(index=False):
        measure = Measure(protocol, metric, label, "val", data, labelled)
        for each in said(results, measure):
            name = protocol + f":{labelled}" * (labelled != "all")
            scores = each.scores(measure, case_weights(each.groups.astype(np.int64)))
            told.setdefault((data, each.curriculum), {}).setdefault(name, {})[each.seed, each.draw] = scores
    return told  # type: ignore[return-value]


def interval(judges: Mapping[str, Values]) -> dict[str, tuple[float, float]]:
    """Each judge's mean over replicates, and half of the interval that it has from patients and from these."""
    values = {name: by_replicate({k: float(v[0]) for k, v in of.items()}) for name, of in judges.items()}
    spread = Spread.of_differences((name, each) for name, each in values.items())
    nothing = {name: {k: np.zeros_like(v) for k, v in of.items()} for name, of in judges.items()}
    return {
        name: (fmean(each), together(patients(judges[name], nothing[name]), spread.half(len(each))) or math.nan)
        for name, each in values.items()
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--against", required=True)
    parser.add_argument("--metric", default="balanced_accuracy", choices=AVERAGED)
    parser.add_argument("--label", default="mean")
    given = parser.parse_args()
    for (data, curriculum), judges in found(load(given.results), given.metric, given.label).items():
        if given.against not in judges:
            continue
        means, other = interval(judges), judges[given.against]
        apart = {
            name: {k: of[k] - other[k] for k in of.keys() & other.keys()}
            for name, of in judges.items()
            if name != given.against and of.keys() & other.keys()
        }
        above = interval(apart)
        seeds = len({seed for seed, _ in other})
        print(f"\n{data}, {curriculum or 'no pre-training'}: {given.metric} of {given.label}, {seeds} seeds, points")
        for name, (mean, half) in sorted(means.items(), key=lambda item: -item[1][0]):
            row = f"{name:<24}{100 * mean:>7.1f} ± {100 * half:<5.1f}"
            if name in above:
                value, width = (100 * x for x in above[name])
                row += f"{value:>+8.1f} ± {width:<5.1f}" + ("above" if value > width else "below" * (-value > width))
            print(row)


if __name__ == "__main__":
    main()
