"""Numbers that no table of scores holds, from the predictions that were kept: accuracy, and the gain over a baseline.

Both are made on the same resamples of patients as every score is, so a gain is paired: over patients, seeds and draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dermsearch import metrics
from dermsearch.results.board.intervals import Spread
from dermsearch.results.board.paired import Replicate, by_replicate, patients, together
from dermsearch.results.tables.measure import Measure, Score
from dermsearch.results.tables.said import Answers, Said, said
from dermsearch.results.tables.schema import OPENED, Results

ACCURACY, GAIN = "accuracy", "auc_gain"
BASELINE = "baseline"  # the protocol that a gain is over
Drawn = Mapping[str, Mapping[Replicate, np.ndarray]]  # by stage: the number, then on every resample


@dataclass(frozen=True)
class Quantity:
    """A number of predictions: which metric, and of which class of which label; of the mean over labels by label."""

    metric: str
    classes: Mapping[str, str]  # label -> class that is reported; one, or all for the mean


class Predictions:
    """What was said in a study, judge by judge; each is read once."""

    def __init__(self, results: Results, labelled: str) -> None:
        self.results, self.labelled = results, labelled
        self._said: dict[tuple[str, str, str], list[Said]] = {}
        self._drawn: dict[tuple[str, str, str, str, tuple[str, ...]], Drawn] = {}

    def said(self, protocol: str, data: str, split: str) -> list[Said]:
        """Every judgement of a protocol on a data set."""
        key = protocol, data, split
        if key not in self._said:
            table = OPENED[1] if split == "test" else "predictions"
            measure = Measure(protocol, "", "", split, data, self.labelled)
            self._said[key] = said(self.results, measure, table)
        return self._said[key]

    def drawn(self, protocol: str, data: str, split: str, quantity: Quantity) -> Drawn:
        """The quantity of every stage, by seed and draw."""
        key = protocol, data, split, quantity.metric, tuple(quantity.classes)
        if key not in self._drawn:
            found: dict[str, dict[Replicate, np.ndarray]] = {}
            for each in self.said(protocol, data, split):
                weights = metrics.case_weights(each.groups)
                there = [(each.labels[k], cls) for k, cls in quantity.classes.items() if k in each.labels]
                there = [(of, cls) for of, cls in there if quantity.metric == ACCURACY or cls in of.classes]
                values = [number(of, cls, quantity.metric, weights) for of, cls in there]
                if values:  # the study's labels may be others than the paper's
                    found.setdefault(each.stage, {})[each.seed, each.draw] = mean(np.stack(values))
            self._drawn[key] = found
        return self._drawn[key]

    def scores(self, protocol: str, data: str, split: str, quantity: Quantity) -> dict[str, Score]:
        """The quantity as scores, by stage."""
        about = {each.stage: each for each in self.said(protocol, data, split)}
        found = {}
        for stage, values in self.drawn(protocol, data, split, quantity).items():
            rows, one = [], about[stage]
            for (seed, draw), replicates in values.items():
                value, low, high = metrics.summary(replicates)
                if value is None:
                    continue
                row = {"curriculum": one.curriculum, "root": one.root, "seed": seed, "draw": draw, "n": len(one.groups)}
                rows.append({**row, "value": value, "ci_low": low, "ci_high": high})
            if rows:
                found[stage] = Score.of(rows, stage)
        return found


def mean(values: np.ndarray) -> np.ndarray:
    """Over labels, without those that have no number: no case of the class is held out. NaN where none has one."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))


def number(answers: Answers, cls: str, metric: str, weights: np.ndarray) -> np.ndarray:
    """(replicates,) of one label: its accuracy, or the AUC of a class."""
    known = answers.truth >= 0
    truth, told, weights = answers.truth[known], answers.probabilities[known], weights[known]
    if metric == ACCURACY:
        return (told.argmax(1) == truth) @ weights / weights.sum(0)
    place = answers.classes.index(cls)
    return metrics.auc(truth == place, told[:, place], weights)


@dataclass(frozen=True)
class Gain:
    """What a line is above the baseline on the same stages."""

    value: float
    half: float | None
    seeds: int
    spread: Spread


def gains(lines: Mapping[str, tuple[Sequence[str], Drawn]], reference: Drawn) -> dict[str, Gain]:
    """Of every line, given its stages and what was said of them; how far seeds lie apart is pooled over all lines."""
    sides = {}
    for name, (stages, drawn) in lines.items():
        ours, theirs = (_replicates(stages, side) for side in (drawn, reference))
        shared = ours.keys() & theirs.keys()
        if shared and drawn is not reference:
            sides[name] = {r: ours[r] for r in shared}, {r: theirs[r] for r in shared}
    apart = {n: by_replicate({r: float(a[r][0] - b[r][0]) for r in a}) for n, (a, b) in sides.items()}
    spread = Spread.of_differences(apart.items())
    return {
        name: Gain(fmean(values), together(patients(*sides[name]), spread.half(len(values))), len(values), spread)
        for name, values in apart.items()
    }


def _replicates(stages: Iterable[str], drawn: Drawn) -> dict[Replicate, np.ndarray]:
    found = {replicate: values for stage in stages for replicate, values in drawn.get(stage, {}).items()}
    return {replicate: values for replicate, values in found.items() if np.isfinite(values[0])}
