"""Differences of scores, paired: the same seeds, the same draws of labels and the same resamples of patients.

Whatever makes cases hard is in both scores and falls out of their difference, so its interval is narrower than two
intervals side by side would have it. The half width is made as that of a score, see `intervals`: the root of the sum of
two squares, of the difference's spread over resampled patients and of that over its replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dermsearch.metrics import LEVEL

Replicate = tuple[int, int]  # seed, draw of labels
Values = Mapping[Replicate, np.ndarray]  # a score in every replicate: itself, then on every resample of the patients


@dataclass(frozen=True)
class Difference:
    """What one curriculum's score is above another's, with half of its 95 % interval."""

    value: float
    half: float | None  # None where nothing is known of it
    paired: bool  # were patients drawn together for both?

    @property
    def above(self) -> bool:
        """Is it above zero, by its interval?"""
        return self.half is not None and self.value > self.half

    @property
    def below(self) -> bool:
        """Is it below zero?"""
        return self.half is not None and -self.value > self.half


def by_replicate(differences: Mapping[Replicate, float], seeds: bool | None = None) -> list[float]:
    """One number per seed, the mean over its draws; with one seed, unless others have more, one per draw."""
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in sorted(differences.items()):
        by_seed.setdefault(seed, []).append(value)
    if len(by_seed) > 1 or seeds:
        return [fmean(values) for values in by_seed.values()]
    return [value for values in by_seed.values() for value in values]


def patients(ours: Values, theirs: Values) -> float | None:
    """Half the width that a difference has from its patients, who are the same for both and in every replicate."""
    by_seed: dict[int, list[np.ndarray]] = {}
    for replicate in sorted(ours.keys() & theirs.keys()):
        by_seed.setdefault(replicate[0], []).append(ours[replicate] - theirs[replicate])
    drawn = np.mean([np.mean(values, axis=0) for values in by_seed.values()], axis=0)[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(high - low) / 2


def together(of_patients: float | None, of_replicates: float) -> float | None:
    """Both halves as one; None where nothing is known of either."""
    if of_patients is None and not of_replicates:
        return None
    return math.hypot(of_patients or 0.0, of_replicates)
