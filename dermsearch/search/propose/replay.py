"""A search without training: the sampler proposes, a table of known scores answers. What would it have cost?"""

from __future__ import annotations

import bisect
import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.search.propose.known import stages
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.propose.tables import Table
from dermsearch.search.space.dimensions import Dimension
from dermsearch.search.space.proposal import Proposal
from dermsearch.study.config import Search


class TableSpace:
    """The curricula that a table has a score for, and no others: what it lacks is not proposed."""

    def __init__(self, table: Table, tasks: Sequence[str]) -> None:
        self.name = "replay"
        self.tasks: Mapping[str, Any] = dict.fromkeys(tasks)
        self.dimensions: list[Dimension] = []  # a table has no settings
        self.repeats = any(len(set(c)) < len(c) for c in table)
        self.length = 1, max(map(len, table))
        place = {task: i for i, task in enumerate(tasks)}
        self.curricula = sorted(table, key=lambda c: (len(c), [place[t] for t in c.tasks]))
        self.room: dict[Curriculum, int] = {}  # how many tasks can follow it
        for curriculum in reversed(self.curricula):  # long ones first
            self.room.setdefault(curriculum, 0)
            before = curriculum.prefix(len(curriculum) - 1)
            if before not in table and before.tasks:
                raise UserError(f"a replay needs a score of every stage: '{curriculum}' has one, but not '{before}'")
            self.room[before] = max(self.room.get(before, 0), self.room[curriculum] + 1)

    def may_follow(self, before: Curriculum, left: int = 0) -> list[str]:
        """The tasks after which the table goes on for `left` more at least."""
        return [task for task in self.tasks if self.room.get(before.then(task), -1) >= left]

    def fits(self, proposal: Proposal) -> bool:
        """A table has one beginning."""
        return True

    def every(self) -> Iterator[Proposal]:
        """The table, short curricula first."""
        return map(Proposal, self.curricula)


@dataclass(frozen=True)
class Replayed:
    """One search: the best score known after each cost, in stages."""

    costs: tuple[int, ...]
    scores: tuple[float, ...]  # the best so far, rising
    found: int | None  # the cost at which the best of all was known
    spent: int

    def best(self, spent: int) -> float:
        """The best score that is known after so many stages; minus infinity while there is none."""
        known = bisect.bisect_right(self.costs, spent)
        return self.scores[known - 1] if known else -math.inf


def replay(table: Table, search: Search, seed: int, sharing: bool = True, to_the_end: bool = False) -> Replayed:
    """Search a table once, until its best is known or the search ends. The seed also shuffles the list of tasks.

    Without sharing every proposal trains all of its stages and only the whole is judged, as a list of trials would.
    """
    tasks = sorted({task for curriculum in table for task in curriculum})
    random.Random(seed).shuffle(tasks)
    proposer = Proposer(
        TableSpace(table, tasks), search.model_copy(update={"sampler_seed": seed}), None, sharing=sharing
    )
    goal, best, spent, found = max(table.values()), -math.inf, 0, None
    costs: list[int] = []
    scores: list[float] = []
    trained: set[Proposal] = set()
    under_way = deque(proposer.ask())
    while under_way and (found is None or to_the_end):
        asked = under_way.popleft()
        path = stages(asked.proposal)
        for stage in path:
            if sharing and stage in trained:
                continue
            trained.add(stage)
            spent += 1
            judged = sharing or stage is path[-1]
            score = table.get(stage.curriculum, -math.inf) if judged else -math.inf
            if score > best:
                best = score
                costs.append(spent)
                scores.append(score)
                found = spent if score == goal else None
        proposer.tell(asked, [table.get(stage.curriculum) if sharing or stage is path[-1] else None for stage in path])
        under_way += proposer.ask()
    return Replayed(tuple(costs), tuple(scores), found, spent)


@dataclass(frozen=True)
class Cost:
    """What finding the best of a table took, over repeats, in stages."""

    found: int  # repeats that found it
    median: float
    ninetieth: float
    exhaustive: int  # if every curriculum were trained whole
    regret: dict[int, float]  # after so many stages: how far the best so far is from the best, on average


def cost(table: Table, runs: Sequence[Replayed]) -> Cost:
    """Sum repeats up; a repeat that never found the best counts as endless."""
    found = sorted(math.inf if run.found is None else run.found for run in runs)
    whole = sum(map(len, table))
    goal, worst = max(table.values()), min(table.values())
    regret = {}
    for spent in dict.fromkeys(round(len(table) * share) for share in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)):
        regret[spent] = max(0.0, goal - fmean(max(worst, run.best(spent)) for run in runs))  # a mean is rounded
    return Cost(sum(map(math.isfinite, found)), quantile(found, 0.5), quantile(found, 0.9), whole, regret)


def quantile(rising: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; half-way between two where it falls between them."""
    at = share * (len(rising) - 1)
    low, high = rising[math.floor(at)], rising[math.ceil(at)]
    return low if low == high else low + (high - low) * (at % 1)
