"""What the sections of a report share: the study's curricula with their scores and names, worked out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dermsearch.curriculum import ARROW, Curriculum, titled
from dermsearch.errors import UserError
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.board.row import Row
from dermsearch.results.report.markup import Markup
from dermsearch.results.tables.lineages import Key, Lineage, differences, lineages
from dermsearch.results.tables.schema import Results


@dataclass(frozen=True)
class PageSection:
    """One part of the page: its HTML, the pictures in it by the id of their place, and what its script works with."""

    id: str
    title: str
    body: Markup
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)  # Vega-Lite, with their data
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A study as its report sees it; everything is found at its first use."""

    results: Results
    whole: bool = True  # with what takes long: a page that is written every few seconds waits for that till the end

    @cached_property
    def rows(self) -> list[Row]:
        """The leaderboard by the study's own objective; empty while nothing has been scored."""
        try:
            return leaderboard(self.results)
        except UserError:
            return []

    @cached_property
    def lines(self) -> dict[Key, Lineage]:
        """The stage tree without its seeds."""
        return lineages(self.results)

    @cached_property
    def told(self) -> dict[Key, dict[str, str]]:
        """By curriculum and task the settings that tell it from another one of the same tasks."""
        return differences(self.keys)

    @cached_property
    def keys(self) -> list[Key]:
        """Everything that has a row: what has no pre-training, then all lineages."""
        roots = [row.key for row in self.rows if not row.length]
        return [*dict.fromkeys([*roots, *(key.beginning for key in self.lines), *self.lines])]

    @cached_property
    def ids(self) -> dict[Key, int]:
        """The numbers by which the page's parts name a curriculum to one another."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def by_key(self) -> dict[Key, Row]:
        """The leaderboard's rows by lineage."""
        return {row.key: row for row in self.rows}

    def name(self, key: Key) -> str:
        """A curriculum with the settings that it is told by."""
        return titled(key.root, spelled(key.curriculum, self.told.get(key)))

    @cached_property
    def shown(self) -> Sequence[Row]:
        """A few that every picture with room for few shows: no pre-training, the best, the best task alone."""
        scored = [row for row in self.rows if row.score is not None]
        of = [
            next((row for row in scored if wanted(row)), None)
            for wanted in (lambda row: not row.length, lambda row: row.length > 0, lambda row: row.length == 1)
        ]
        return [*dict.fromkeys(row for row in of if row)]


def spelled(curriculum: Curriculum, told: Mapping[str, str] | None = None) -> str:
    """A curriculum in the study's own words, as the leaderboard has it, with settings of its tasks in brackets."""
    known = told or {}
    return ARROW.join(f"{t} [{known[t]}]" if t in known else t for t in curriculum) or str(curriculum)


def percent(value: float | None, digits: int = 2) -> float | None:
    """A fraction in percent points, as pictures have it."""
    return None if value is None else round(100 * value, digits)
