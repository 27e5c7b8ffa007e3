"""Intervals that hold both what patients and what replicates differ by, at any number of replicates.

All replicates of a curriculum are judged on the same patients, so averaging over them does nothing about those: the
half width is the root of the sum of two squares, that of the scores' own intervals over patients and Student's t times
the standard error of the mean over replicates. How far replicates lie apart is pooled over all curricula of a study,
since two of one say next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dermsearch.results.tables.measure import Score

LEVEL = 0.95
SHARED = 0.5  # how far two differences to one reference go together


@dataclass(frozen=True)
class Spread:
    """How far replicates lie apart, on how many degrees of freedom; nothing is known of it where there are none."""

    variance: float = 0.0
    freedom: float = 0
    seeds: bool = False  # whether a replicate is a seed, the mean over its draws of labels; else it is a draw

    @classmethod
    def of(cls, curricula: Iterable[Sequence[Score]], roots: Iterable[Sequence[Score]] = ()) -> Spread:
        """Pooled over curricula, each by its seeds, and over roots that are not the same for every seed."""
        curricula = [scores for scores in (*curricula, *(own for own in roots if not alike(own))) if scores]
        seeds = any(len(scores) > 1 for scores in curricula)
        groups = [replicates(scores, seeds) for scores in curricula]
        freedom = sum(len(group) - 1 for group in groups)
        squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
        return cls(squares / freedom if freedom else 0.0, freedom, seeds)

    @classmethod
    def of_differences(cls, differences: Iterable[tuple[Hashable, Sequence[float]]], seeds: bool = True) -> Spread:
        """That of differences to one and the same reference, each with the stage that its curriculum begins with.

        They are not as many measurements as there are: the reference's luck is in all of them, so two share half of
        their variance, and a first stage's is in all that grows from it, so those count as one. By that the degrees of
        freedom are fewer (Satterthwaite).
        """
        found = [(first, values) for first, values in differences if len(values) > 1]
        freedom = sum(len(values) - 1 for _, values in found)
        if not freedom:
            return cls(seeds=seeds)
        squares = sum((value - fmean(values)) ** 2 for _, values in found for value in values)
        apart = len({first for first, _ in found})
        return cls(squares / freedom, freedom / len(found) / (1 / apart + (1 - 1 / apart) * SHARED**2), seeds)

    def half(self, count: int) -> float:
        """Half the width of the interval that the mean of so many replicates has from their spread alone."""
        from scipy.special import stdtrit

        if not self.freedom:
            return 0.0
        return float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * math.sqrt(self.variance / count)


NO_SPREAD = Spread()
BOUNDS = {"mean_rank": (1.0, math.inf), "ail_ratio": (0.0, math.inf), "lift": (-math.inf, 1.0)}  # others: 0 and 1


def replicates(scores: Sequence[Score], seeds: bool) -> list[float]:
    """The values of one curriculum that differ by chance: one per seed, or one per draw of labels."""
    return [score.value for score in scores] if seeds else [value for score in scores for value in score.values]


def interval(scores: Sequence[Score], spread: Spread, metric: str = "") -> tuple[float | None, float | None]:
    """95 % interval of the mean of a curriculum's scores, one per seed; none where nothing is known of its width."""
    below = [score.below for score in scores if score.below is not None]
    above = [score.above for score in scores if score.above is not None]
    half = spread.half(len(replicates(scores, spread.seeds)))
    if not below and not half:
        return None, None
    mean, (lowest, highest) = fmean(score.value for score in scores), BOUNDS.get(metric, (0.0, 1.0))
    low, high = (math.hypot(fmean(ends) if ends else 0.0, half) for ends in (below, above))
    return max(lowest, mean - low), min(highest, mean + high)


def alike(scores: Sequence[Score]) -> bool:
    """Do all seeds of a root agree? Weights of a file do: they are one measurement, without replicates."""
    return len(scores) > 1 and len({score.values for score in scores}) == 1
