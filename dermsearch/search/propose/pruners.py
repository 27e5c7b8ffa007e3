"""When is a curriculum not worth going on with? Optuna's pruners, and at which steps they hear of what.

A step is a look at a stage: at each rung, then at its end, stage after stage. A pruner that pairs seeds hears of each
seed by itself, the others of the mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import optuna

from dermsearch.study.config import Search


@dataclass(frozen=True)
class Pruner:
    """One of Optuna's pruners, and how it is used here."""

    name: str  # of the class
    options: dict[str, Any] = field(default_factory=dict)
    most: str = ""  # the option that takes the number of the last step
    per_seed: bool = False


PRUNERS = {
    "median": Pruner("MedianPruner"),
    # Curricula have a handful of steps, so what halves at every doubling is looked at steps 1, 2, 4 and 8.
    "halving": Pruner("SuccessiveHalvingPruner", {"min_resource": 1, "reduction_factor": 2}),
    "hyperband": Pruner("HyperbandPruner", {"min_resource": 1, "reduction_factor": 2}, most="max_resource"),
    "wilcoxon": Pruner("WilcoxonPruner", {"p_threshold": 0.1}, per_seed=True),
}


class Marks:
    """Where the scores of a study's proposals stand in the eyes of its pruner."""

    def __init__(self, search: Search, longest: int) -> None:
        self.kind, self.seeds = PRUNERS.get(search.pruner), len(search.seeds)
        self.each = len(search.rungs) + 1  # looks at one stage
        self.last = longest * self.each
        self.per_seed = self.kind is not None and self.kind.per_seed

    def pruner(self) -> optuna.pruners.BasePruner | None:
        """The pruner itself; None where nothing is pruned."""
        if self.kind is None:
            return None
        options = {**self.kind.options, **({self.kind.most: self.last} if self.kind.most else {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one is experimental
            found: optuna.pruners.BasePruner = getattr(optuna.pruners, self.kind.name)(**options)
        return found

    def at(self, depth: int, rung: int | None, values: Sequence[float]) -> dict[int, float]:
        """By step, what it hears of a stage of that depth, at the rung of that number or (None) at its end."""
        step = depth * self.each if rung is None else (depth - 1) * self.each + rung + 1
        if not self.per_seed:
            return {step: fmean(values)}
        return {(step - 1) * self.seeds + seed: value for seed, value in enumerate(values)}
