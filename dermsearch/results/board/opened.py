"""Validation and test side by side, for what the test split was opened for, and the luck of the choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dermsearch.results.board.differences import drawn
from dermsearch.results.board.leaderboard import apart, leaderboard, points
from dermsearch.results.board.optimism import Optimism, optimism
from dermsearch.results.board.row import Row, contenders
from dermsearch.results.tables.lineages import Key, mean_difference
from dermsearch.results.tables.schema import Results

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Tested:
    """A curriculum on validation and on test. Scores are fractions."""

    rule: str  # why it was chosen
    validation: Row
    test: Row  # of the seeds that there were when it was opened

    @property
    def change(self) -> float | None:
        """What it has on test above validation, over the same seeds."""
        ours, theirs = (dict(zip(row.seeds, row.values, strict=True)) for row in (self.test, self.validation))
        return mean_difference(ours, theirs)


@dataclass(frozen=True)
class Opened:
    """All that is known of the test split, and how much luck there is in the best validation score."""

    openings: int
    tested: list[Tested]  # in the order of validation
    luck: Optimism | None  # of the best of all on validation; None where no predictions were kept


def opened(
    results: Results, protocol: str | None = None, metric: str | None = None, label: str | None = None
) -> Opened | None:
    """What came of opening the test split; None where nobody has."""
    rules = dict(zip(results.tests["stage"].to_pylist(), results.tests["rule"].to_pylist(), strict=True))
    if not rules:
        return None
    rows = leaderboard(results, protocol, metric, label)
    on = {"scores": latest(results), "predictions": results.test_predictions}
    there = replace(results, tables={**results.tables, **on})
    on_test = {row.key: row for row in leaderboard(there, protocol, metric, label, "test") if row.score is not None}
    found = [
        Tested(rules[test.keys[0]], row, test)
        for row in rows
        if row.score is not None and (test := on_test.get(row.key))
    ]
    openings = max(results.tests["opening"].to_pylist())
    return Opened(openings, found, luck_of_the_best(results, rows, on_test))


def latest(results: Results) -> pa.Table:
    """The scores on test, as the table of scores has them: of each stage those of its last opening."""
    stages, openings = (results.tests[name].to_pylist() for name in ("stage", "opening"))
    last = dict(sorted(zip(stages, openings, strict=True), key=lambda pair: pair[1]))
    keep = [last[stage] == opening for stage, opening in zip(stages, openings, strict=True)]
    return results.tests.filter(np.array(keep)).select(results.scores.column_names)


def luck_of_the_best(results: Results, rows: list[Row], on_test: dict[Key, Row]) -> Optimism | None:
    """By how much the best of these rows is better on validation than it is, from the whole tree's predictions."""
    if not (scored := contenders(rows)):
        return None
    resampled = {stage: np.mean([*of.values()], 0) for stage, of in drawn(results, scored[0].measure).items()}
    if any(key not in resampled for row in scored for key in row.keys):
        return None  # no predictions were kept
    scores = np.stack([np.mean([resampled[key] for key in row.keys], 0) for row in scored])
    scores = scores[:, np.isfinite(scores).all(0)]  # a resample may lack a class: no AUC has a value there
    if scores.shape[1] < 2:
        return None  # of one patient
    test = on_test.get(scored[0].key)
    error = test.error_of_patients if test else 0.0  # the encoders are the same on both splits, and so is their luck
    return optimism(scores, error)


HEADINGS = ["curriculum", "chosen as", "validation, %", "test, %  [95 %]", "Δ no pre-\ntraining",
            "test minus\nvalidation"]  # fmt: skip


def cells(each: Tested, name: str) -> list[str]:
    """A curriculum of that name on both splits, as printed."""
    test, change = each.test, points(each.change, "+")
    score = f"{points(test.score)} [{points(test.low)}, {points(test.high)}]"
    return [name, each.rule, points(each.validation.score), score, apart(test.to_none), change]


def render(found: Opened) -> Table:
    """Validation and test as a table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="On the test split", caption="\n".join(notes(found)), caption_justify="left")
    table.box, table.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=i > 1)
    for each in found.tested:
        table.add_row(*map(Text, cells(each, each.test.name)))
    return table


def notes(found: Opened) -> list[str]:
    """How often the split was opened, and what of the best validation score is luck."""
    times = f"{found.openings} times" if found.openings > 1 else "once"
    said = [f"The test split of these data was opened {times}, as far as this stage store and these tables know."]
    if found.openings > 1:
        said.append("What was chosen after an earlier look is no longer blind.")
    if fewer := [each.test.name for each in found.tested if len(each.test.seeds) < len(each.validation.seeds)]:
        said.append(f"Validation has further seeds, which were not tested: of {', '.join(fewer)}.")
    if found.luck:
        luck = found.luck
        many = f"By luck, the best of {luck.curricula} is {points(luck.value)} points better on validation than it is;"
        said += [
            many if luck.curricula > 1 else "There was one curriculum, so none was chosen by luck;",
            f"on test it should stand between {points(-luck.high, '+')} and {points(-luck.low, '+')} points of it "
            "(95 %).",
        ]
    return said
