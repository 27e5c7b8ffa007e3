"""A proposal, and what whoever makes one must know of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dermsearch.curriculum import Curriculum
from dermsearch.search.space.dimensions import ROOT, Dimension

Values = tuple[tuple[str, Any], ...]  # by dimension, sorted by name


@dataclass(frozen=True)
class Proposal:
    """A curriculum with a value for every dimension of its tasks."""

    curriculum: Curriculum
    values: Values = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The values by dimension."""
        return dict(self.values)

    @property
    def root(self) -> str:
        """The name of what it begins with; empty where a study has one root only."""
        return self.settings.get(ROOT, "")

    def own(self, task: str) -> Values:
        """What it says of a task."""
        return tuple(each for each in self.values if each[0].rpartition(".")[0] == task)

    def prefix(self, length: int) -> Proposal:
        """The shorter curriculum that this one begins with."""
        shorter = self.curriculum.prefix(length)
        own = tuple((n, v) for n, v in self.values if n == ROOT or n.rpartition(".")[0] in shorter)
        return Proposal(shorter, own)


class Choices(Protocol):
    """What a sampler must know of a space."""

    name: str  # of the study
    tasks: Mapping[str, Any]  # by name
    dimensions: list[Dimension]  # what is searched beside the order
    repeats: bool  # may a task come again?
    length: tuple[int, int]  # of the shortest and of the longest curriculum

    def may_follow(self, before: Curriculum, left: int = 0) -> list[str]:
        """The tasks that may come after these with `left` more behind them."""

    def fits(self, proposal: Proposal) -> bool:
        """Can what the proposal begins with be trained by all of its tasks?"""

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""
