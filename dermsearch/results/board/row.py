"""A row of the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dermsearch.curriculum import Curriculum, titled
from dermsearch.results.board.about import PATIENTS
from dermsearch.results.board.intervals import NO_SPREAD, Spread
from dermsearch.results.board.paired import Difference
from dermsearch.results.tables.lineages import Key
from dermsearch.results.tables.measure import Measure


@dataclass(frozen=True)
class Row:
    """One curriculum with one choice of settings, over its seeds. Scores and differences are fractions."""

    root: str  # what it begins with, where there are several
    curriculum: str
    settings: tuple[str, ...]  # JSON, one per task
    measure: Measure
    status: str  # done | failed | pruned | dropped (an earlier stage failed) | unscored
    rank: int | None = None  # among the scored curricula, 1 for all that cannot be told from the best; no baseline's
    order: str = ""  # C | AC | MC | ? | "" (ordering())
    score: float | None = None  # mean over the seeds
    low: float | None = None  # 95 % interval
    high: float | None = None
    delta_first: float | None = None  # to the first task of the curriculum alone, same root, settings and seeds
    delta_none: float | None = None  # to no pre-training, same root and seeds
    to_none: Difference | None = None  # the same, with its interval
    to_single: Difference | None = None  # to the best of the tasks alone, same seeds
    to_best: Difference | None = None  # to the best of all, same seeds
    seeds: tuple[int, ...] = ()
    draws: int = 1  # of the labels, in each seed
    groups: str = PATIENTS  # what intervals are drawn over
    values: tuple[float, ...] = ()  # one per seed
    keys: tuple[str, ...] = ()  # the stages, one per seed
    spread: Spread = NO_SPREAD  # of replicates, in its interval
    error_of_patients: float = 0.0  # the score's standard error over them alone
    error: str = ""
    given: bool = False  # encoders of others, as they came: their own name says all

    @cached_property
    def tasks(self) -> Curriculum:
        """The curriculum as a value."""
        return Curriculum.parse(self.curriculum)

    @property
    def name(self) -> str:
        """The curriculum, with its root before it where there are several."""
        return self.root if self.given else titled(self.root, self.curriculum)

    @cached_property
    def key(self) -> Key:
        """The lineage that it is of."""
        return Key(self.tasks, self.settings, self.root)

    @property
    def ties(self) -> bool:
        """Is it another than the best, and cannot be told from it?"""
        return tied(self.to_best, self.measure)

    @property
    def length(self) -> int:
        """Number of tasks: 0 for no pre-training and random weights."""
        return len(self.tasks)


def contenders(rows: Sequence[Row]) -> list[Row]:
    """What the best is chosen among: curricula; where nothing is trained, encoders of others; else all with a score."""
    scored = [row for row in rows if row.score is not None]
    return [row for row in scored if row.length] or [row for row in scored if row.given] or scored


def tied(difference: Difference | None, measure: Measure) -> bool:
    """Is it known, and cannot be told to be worse than none?"""
    if difference is None or difference.half is None:
        return False
    return not (difference.above if measure.less else difference.below)
