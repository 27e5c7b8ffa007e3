"""A proposal, and what whoever makes one must know of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dermsearch.curriculum import Curriculum
from dermsearch.search.space.dimensions import ROOT, Dimension


@dataclass(frozen=True)
class Proposal:
    """A curriculum with a value for every dimension of its tasks."""

    curriculum: Curriculum
    values: tuple[tuple[str, Any], ...] = ()  # sorted by name

    @property
    def settings(self) -> dict[str, Any]:
        """The values by dimension."""
        return dict(self.values)

    @property
    def root(self) -> str:
        """The name of what it begins with; empty where a study has one root only."""
        return self.settings.get(ROOT, "")

    def prefix(self, length: int) -> Proposal:
        """The shorter curriculum that this one begins with."""
        shorter = self.curriculum.prefix(length)
        own = tuple((n, v) for n, v in self.values if n == ROOT or n.rpartition(".")[0] in shorter)
        return Proposal(shorter, own)


class Choices(Protocol):
    """What a sampler must know of a space."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The tasks by name."""

    @property
    def dimensions(self) -> list[Dimension]:
        """What is searched beside the order."""

    @property
    def name(self) -> str:
        """Of the study."""

    @property
    def repeats(self) -> bool:
        """May a task come again?"""

    @property
    def length(self) -> tuple[int, int]:
        """The shortest and the longest curriculum."""

    def may_follow(self, before: Curriculum, left: int = 0) -> list[str]:
        """The tasks that may come after these with `left` more behind them."""

    def fits(self, proposal: Proposal) -> bool:
        """Can what the proposal begins with be trained by all of its tasks?"""

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""
