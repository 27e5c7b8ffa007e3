"""What may be proposed: which tasks may follow one another, and with which settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.pretext.base import AnyTask
from dermsearch.search.space.dimensions import ROOT, Dimension
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.settings import read_task
from dermsearch.study import config

LARGEST = 10**7  # proposals of a finite space


class Space:
    """All proposals of a study. `checks.space_of` makes one that is checked against the rest of its study."""

    def __init__(
        self,
        curriculum: config.Curricula,
        train: config.Train,
        looks: Sequence[int] = (),
        size: int = 64,
        name: str = "space",
        roots: Sequence[str] = ("",),
    ) -> None:
        """Tasks that are trained by `train`, looked at after so many epochs, on images of so many pixels a side."""
        self.barred: set[tuple[str, str]] = set()  # of several roots, the (root, task) that do not go together
        self.name, self.size, self.looks = name, size, looks
        self.length, self.order, self.repeats = curriculum.length, curriculum.order, curriculum.repeats
        self.given = {task: read_task(task, given, train) for task, given in curriculum.tasks.items()}
        self.tasks: Mapping[str, type[AnyTask]] = {task: given.task for task, given in self.given.items()}
        self.selections = {task: given.selection for task, given in self.given.items() if given.selection}
        self.dimensions = [Dimension(ROOT, "choice", tuple(roots))] * (len(roots) > 1)
        self.dimensions += [d for given in self.given.values() for d in given.dimensions]

    def settings(self, task: str, values: dict[str, Any]) -> dict[str, Any]:
        """Everything that trains one stage of `task`: {"config": ..., "train": ...}, nothing left open."""
        return self.given[task].whole(values)

    def rungs(self, task: str, epochs: int) -> list[int]:
        """The epochs at which a stage of the task is looked at: behind the choice of its rate, before its end."""
        after = self.selections[task].epochs if task in self.selections else 0
        return [rung for rung in self.looks if after < rung < epochs]

    def may_follow(self, before: Curriculum, left: int = 0) -> list[str]:
        """The tasks that may come after these with `left` more behind them."""
        if before.tasks and self.given[before.last].supervised:
            return []
        return [name for name in self._next(before) if self.room(before.then(name)) >= left]

    def room(self, before: Curriculum) -> int:
        """How many more tasks can follow these; one that reads labels comes last or not at all."""
        if before.tasks and self.given[before.last].supervised:
            return 0
        following = self._next(before)
        free = [name for name in following if not self.given[name].supervised]
        if free and self.repeats:
            return self.length[1]
        readers = [name for name in following if name not in free]
        if not readers or self.order == "any":
            return len(free) + bool(readers)
        ahead = following[: following.index(readers[-1])]  # listed before the last reader: it may come before it
        return max(len(free), sum(name in free for name in ahead) + 1)

    def _next(self, before: Curriculum) -> list[str]:
        """The tasks that repeats and order leave after these, as the study lists them."""
        names = list(self.tasks)
        if before.tasks and self.order == "listed":
            names = names[names.index(before.last) + (not self.repeats) :]
        return [name for name in names if self.repeats or name not in before.tasks]

    def curricula(self) -> Iterator[Curriculum]:
        """Every order of tasks within the lengths, short ones first; a task that reads labels comes last."""
        names, repeats = list(self.tasks), self.repeats
        for length in range(max(1, self.length[0]), self.length[1] + 1):
            orders: Iterator[tuple[str, ...]]
            if self.order == "listed":
                choose = itertools.combinations_with_replacement if repeats else itertools.combinations
                orders = choose(names, length)
            else:
                orders = itertools.product(names, repeat=length) if repeats else itertools.permutations(names, length)
            yield from (Curriculum(c) for c in orders if not any(self.given[name].supervised for name in c[:-1]))

    def fits(self, proposal: Proposal) -> bool:
        """Can what the proposal begins with be trained by all of its tasks?"""
        return not self.barred or not any((proposal.root, task) in self.barred for task in proposal.curriculum)

    def count(self) -> int | None:
        """How many proposals there are; None where a dimension is continuous."""
        if any(d.kind != "choice" for d in self.dimensions):
            return None
        total = 0
        for curriculum in self.curricula():
            own = {d.name: d.values for d in self.dimensions if d.of(curriculum)}
            if ROOT in own:
                barred = {root for root, task in self.barred if task in curriculum}
                own[ROOT] = tuple(root for root in own[ROOT] if root not in barred)
            total += math.prod(map(len, own.values()))
            if total > LARGEST:
                raise UserError(f"curriculum: has more than {LARGEST:,} proposals; search fewer tasks or lengths")
        return total

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""
        for curriculum in self.curricula():
            own = [d for d in self.dimensions if d.of(curriculum)]
            for values in itertools.product(*(d.values for d in own)):
                found = Proposal(curriculum, tuple(sorted((d.name, v) for d, v in zip(own, values, strict=True))))
                if self.fits(found):
                    yield found
