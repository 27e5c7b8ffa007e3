"""A search without training: the sampler proposes, a table of known scores answers. What would it have cost?"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError, nearest
from dermsearch.papers.published import IMAGENET, TABLES, published
from dermsearch.papers.sheet import need, read_sheet
from dermsearch.search.propose.known import stages
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.dimensions import Dimension
from dermsearch.search.space.proposal import Proposal
from dermsearch.study.config import Search

Table = Mapping[Curriculum, float]  # the score of each curriculum


class TableSpace:
    """The curricula that a table has a score for, and no others: what it lacks is not proposed."""

    def __init__(self, table: Table, tasks: Sequence[str]) -> None:
        self.name, self.tasks = "replay", dict.fromkeys(tasks)
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
    while (found is None or to_the_end) and (asked_now := proposer.ask()):
        for asked in asked_now:
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
            if found is not None and not to_the_end:
                break
            proposer.tell(
                asked, [table.get(stage.curriculum) if sharing or stage is path[-1] else None for stage in path]
            )
    return Replayed(tuple(costs), tuple(scores), found, spent)


def read_table(name: str) -> dict[Curriculum, float]:
    """A published table by its name, a CSV file with columns curriculum and score, or a study's results folder.

    Of a study, a curriculum's score is the mean over its seeds, with the best of its settings.
    """
    path = Path(name)
    if path.is_dir():
        from dermsearch.results import load
        from dermsearch.results.board.leaderboard import leaderboard

        scored = [(r.curriculum, r.score) for r in leaderboard(load(path)) if r.score is not None]
    elif path.suffix == ".csv":
        lines = read_sheet(path)
        need(lines, ("curriculum", "score"))
        scored = [(line.text("curriculum"), line.plain("score")) for line in lines]
    elif name in TABLES:
        scored = list(published(name).items())
    else:
        raise UserError(
            f"'{name}' is neither a results folder nor a CSV file nor a published table; {nearest(name, TABLES)}"
        )
    scores: dict[Curriculum, float] = {}
    for text, score in scored:
        curriculum = Curriculum.parse(text)
        if curriculum.tasks and text != IMAGENET:
            scores[curriculum] = max(score, scores.get(curriculum, -math.inf))
    if len(scores) < 2:
        raise UserError(f"{name}: has {len(scores)} curricula with a score; a search needs two at least")
    return scores


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
        regret[spent] = goal - fmean(max(worst, run.best(spent)) for run in runs)
    return Cost(sum(map(math.isfinite, found)), quantile(found, 0.5), quantile(found, 0.9), whole, regret)


def quantile(rising: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; half-way between two where it falls between them."""
    at = share * (len(rising) - 1)
    low, high = rising[math.floor(at)], rising[math.ceil(at)]
    return low if low == high else low + (high - low) * (at % 1)
