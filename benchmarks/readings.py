"""What do images tell, what their metadata, and what both? A protocol that reads the same cases in several ways.

    python benchmarks/readings.py RESULTS [--protocol linear] [--metric balanced_accuracy] [--label mean]

For a study that names the same cases several times, each read by the protocol with `features` of its own, such as
slimp_ham10000. Printed behind each curriculum: the mean over seeds of every reading with its 95 % interval, what it is
above each other, and what each is above that of no pre-training, on the same seeds and the same resamples of patients,
or of lesions where nobody knows these. Last, where `own_table` judged, how often an image finds its own row.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from itertools import combinations
from statistics import fmean

import numpy as np

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.metrics import AVERAGED, case_weights
from dermsearch.results import load
from dermsearch.results.board.intervals import Spread
from dermsearch.results.board.paired import Replicate, Values, by_replicate, patients, together
from dermsearch.results.tables.measure import Measure, Score
from dermsearch.results.tables.said import said
from dermsearch.results.tables.schema import Results

FIRST = {"acc_at_1": 1, "acc_at_5": 5}


def names(results: Results) -> dict[str, str]:
    """What each stage is called: its curriculum, with what was searched of it."""
    found = {}
    for trial in results.pandas("trials").itertuples():
        searched = ", ".join(f"{name} {value}" for name, value in json.loads(trial.settings).items())
        found |= dict.fromkeys(trial.keys, f"{trial.curriculum} ({searched})" if searched else trial.curriculum)
    return found


def readings(results: Results, protocol: str, metric: str, label: str) -> dict[str, dict[str, Values]]:
    """By stage and name of the data the scores in every replicate: itself, then on each resample."""
    found: dict[str, dict[str, dict[Replicate, np.ndarray]]] = {}
    judged: dict[str, bytes] = {}
    kept = results.pandas("predictions").query("protocol == @protocol and labelled == 'all'")
    called = names(results)
    for data in kept.data.unique():
        measure = Measure(protocol, metric, label, "val", data)
        for each in said(results, measure):
            groups = np.asarray(each.groups, np.int64)
            judged[data] = groups.tobytes()
            of = found.setdefault(called.get(each.stage, each.curriculum), {}).setdefault(data, {})
            of[each.seed, each.draw] = each.scores(measure, case_weights(groups))
    if len(judged) < 2 or len(set(judged.values())) > 1:
        raise SystemExit(f"{results.folder}: {protocol} left no predictions of the same cases under several names")
    who = f"{len(groups)} cases of {len(np.unique(groups))} patients or lesions"
    print(f"{metric} of {label} by {protocol}, points; {who}")
    return found  # type: ignore[return-value]


def less(ours: Values, theirs: Values) -> Values:
    """The difference in every replicate that both have."""
    return {k: ours[k] - theirs[k] for k in sorted(ours.keys() & theirs.keys())}


def show(many: Mapping[str, Values], differences: bool = True) -> None:
    """A line for each: the mean over seeds, half of its interval, and of a difference whether it is told from zero."""
    each = {name: by_replicate({k: float(v[0]) for k, v in of.items()}) for name, of in many.items()}
    spread = Spread.of_differences(each.items())
    for name, of in many.items():
        nothing = {k: np.zeros_like(v) for k, v in of.items()}
        half = 100 * (together(patients(of, nothing), spread.half(len(each[name]))) or math.nan)
        value = 100 * fmean(each[name])
        verdict = "above" if value > half else "below" if -value > half else "not told"
        print(f"  {name:<34}{value:{'+' * differences}7.1f} ± {half:<6.1f}{verdict * differences}".rstrip())


def show_own(results: Results) -> None:
    """How often an image finds its own row among those of all held-out cases, and how often by chance."""
    scores = results.pandas("scores").query("protocol == 'own_table' and `class` == '' and split == 'val'")
    called = names(results)
    scores = scores.assign(name=[called.get(s, c) for s, c in zip(scores.stage, scores.curriculum, strict=True)])
    for (name, metric), rows in scores.groupby(["name", "metric"], sort=False):
        each = [Score.of([row], row["stage"]) for row in rows.to_dict("records")]
        value, n = fmean(s.value for s in each), each[0].n
        half = math.hypot(fmean(s.below or 0 for s in each), Spread.of([each]).half(len(each)))
        chance = FIRST[metric] / n if metric in FIRST else (n + 1) / 2
        if metric in FIRST:
            print(f"  {name}, {metric}: {100 * value:.2f} ± {100 * half:.2f} % of {n}, chance {100 * chance:.2f}")
        else:
            print(f"  {name}, {metric}: {value:.0f} ± {half:.0f} of {n}, chance {chance:.0f}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--protocol", default="linear")
    parser.add_argument("--metric", default="balanced_accuracy", choices=AVERAGED)
    parser.add_argument("--label", default="mean")
    given = parser.parse_args()
    results = load(given.results)
    found = readings(results, given.protocol, given.metric, given.label)
    for name, own in found.items():
        print(f"\n{name}, {len({seed for of in own.values() for seed, _ in of})} seeds")
        show(own, differences=False)
        best = sorted(own, key=lambda data: -fmean(float(v[0]) for v in own[data].values()))
        show({f"{a} above {b}": less(own[a], own[b]) for a, b in combinations(best, 2)})
        if name != ROOT_CURRICULUM and ROOT_CURRICULUM in found:
            before = found[ROOT_CURRICULUM]
            gains = {f"{data} above no pre-training's": less(of, before[data]) for data, of in own.items()}
            show({name: of for name, of in gains.items() if any(v.any() for v in of.values())})
    print("\nits own row")
    show_own(results)


if __name__ == "__main__":
    main()
