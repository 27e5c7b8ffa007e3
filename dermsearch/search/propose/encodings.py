"""Curricula as parameters that Optuna can search, and back. Settings are parameters of their own; see journal.py.

Both encodings have a length, and parameters for as many places as the longest curriculum has, so that a trial always
has the same ones and a sampler can model them together. What a parameter may not mean here it means what is nearest,
so that every draw is a curriculum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from dermsearch.curriculum import Curriculum
from dermsearch.search.space.proposal import Choices


class Encoding(Protocol):
    """One way to write an order of tasks."""

    def distributions(self, space: Choices) -> dict[str, BaseDistribution]:
        """The parameters beside the length."""

    def read(self, space: Choices, params: Mapping[str, Any]) -> Curriculum:
        """The curriculum that parameters stand for."""

    def write(self, space: Choices, curriculum: Curriculum) -> dict[str, Any]:
        """Parameters that stand for a curriculum."""


class Slots:
    """A task for each place; one that may not come there becomes the next of the list that may."""

    def distributions(self, space: Choices) -> dict[str, BaseDistribution]:
        """A choice among all tasks for each place."""
        return {f"slot_{i}": CategoricalDistribution(list(space.tasks)) for i in range(space.length[1])}

    def read(self, space: Choices, params: Mapping[str, Any]) -> Curriculum:
        """Repair place by place."""
        tasks, length = list(space.tasks), params["length"]
        curriculum = Curriculum()
        for i in range(length):
            allowed, at = space.may_follow(curriculum, left=length - 1 - i), tasks.index(params[f"slot_{i}"])
            curriculum = curriculum.then(next(t for t in tasks[at:] + tasks[:at] if t in allowed))
        return curriculum

    def write(self, space: Choices, curriculum: Curriculum) -> dict[str, Any]:
        """Places behind the end keep the first task."""
        empty = [next(iter(space.tasks))] * (space.length[1] - len(curriculum))
        return {f"slot_{i}": name for i, name in enumerate([*curriculum, *empty])}


class Codes:
    """For each place a number: which of the tasks that may come there (without restrictions, a Lehmer code)."""

    def distributions(self, space: Choices) -> dict[str, BaseDistribution]:
        """Whole numbers, the fewer the further behind where tasks do not come again."""
        return {f"code_{i}": IntDistribution(0, self._most(space, i) - 1) for i in range(space.length[1])}

    def read(self, space: Choices, params: Mapping[str, Any]) -> Curriculum:
        """Where fewer tasks may come, several numbers mean the same one."""
        curriculum = Curriculum()
        for i in range(params["length"]):
            allowed = space.may_follow(curriculum, left=params["length"] - 1 - i)
            curriculum = curriculum.then(allowed[params[f"code_{i}"] * len(allowed) // self._most(space, i)])
        return curriculum

    def write(self, space: Choices, curriculum: Curriculum) -> dict[str, Any]:
        """The smallest number that means the task; places behind the end keep 0."""
        codes = [0] * space.length[1]
        for i, name in enumerate(curriculum):
            allowed = space.may_follow(curriculum.prefix(i), left=len(curriculum) - 1 - i)
            codes[i] = -(-allowed.index(name) * self._most(space, i) // len(allowed))
        return {f"code_{i}": code for i, code in enumerate(codes)}

    @staticmethod
    def _most(space: Choices, place: int) -> int:
        return len(space.tasks) if space.repeats else max(1, len(space.tasks) - place)
