"""The leaderboard by every measure that the tables hold, as it is printed, to be sorted and searched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.compute as pc

from dermsearch.errors import UserError
from dermsearch.results.board.about import about
from dermsearch.results.board.leaderboard import HEADINGS, cells, footnotes, leaderboard
from dermsearch.results.board.row import Row
from dermsearch.results.drawing import readable
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el
from dermsearch.results.tables.measure import MEAN, spelt

LINES = 9000  # of all boards together: a large study has those that matter most


class MeasureAsked(NamedTuple):
    """What one leaderboard is asked for, as `dermsearch leaderboard` is."""

    protocol: str | None
    metric: str | None
    label: str | None


def boards(content: Content) -> PageSection:
    """The study's own leaderboard first, then those by other measures."""
    found = [board(content, content.rows, None)] if content.rows else []
    room = LINES // max(1, len(content.rows)) if content.whole else 1
    every = list(others(content))
    for asked in every[: room - 1]:
        try:
            rows = leaderboard(content.results, *asked)
        except UserError:
            continue
        if rows:  # of roots alone, a measure may have no number: an AUC where the cases show one class
            found.append(board(content, rows, asked))
    left = len(every) - len(found) + 1
    note = f"{left} more measures: dermsearch leaderboard {content.results.folder} --protocol ... --metric ..."
    body = el("div", class_="tools", id="board-tools") + el("div", class_="wide", id="board-table")
    body += el("div", id="board-notes") + (el("p", note, class_="quiet") if found and left > 0 else "")
    heads = [heading.replace("-\n", "-").replace("\n", " ") for heading in HEADINGS]
    return PageSection("board", "Leaderboard", Markup(body), data={"boards": {"heads": heads, "all": found}})


def others(content: Content) -> Iterator[MeasureAsked]:
    """Every measure of validation, nearest to the objective first: other judges, metrics, then labels."""
    if not content.rows:
        return
    own = content.rows[0].measure
    wanted = (pc.field("class") == "") & (pc.field("split") == own.split) & (pc.field("metric") != "mean_rank")
    columns = ["protocol", "data", "labelled", "label", "metric"]
    rows = content.results.scores.filter(wanted).group_by(columns).aggregate([]).to_pylist()

    def far(row: dict[str, Any]) -> tuple[Any, ...]:
        judge = spelt(row["protocol"], row["data"], row["labelled"])
        return (
            (row["label"] != own.label) + 2 * (row["metric"] != own.metric) * (row["label"] != own.label),
            row["metric"] != own.metric,
            judge != own.judge,
            *(row[name] for name in columns),
        )

    for row in sorted(rows, key=far):
        judge = spelt(row["protocol"], row["data"], row["labelled"])
        if (judge, row["metric"], row["label"]) != (own.judge, own.metric, own.label):
            yield MeasureAsked(judge, row["metric"], row["label"])


def board(content: Content, rows: list[Row], asked: MeasureAsked | None) -> dict[str, Any]:
    """One leaderboard: what `dermsearch leaderboard` prints, cell by cell, and the curriculum that a line is of."""
    measure = rows[0].measure
    label = "mean over labels" if measure.label == MEAN else readable(measure.label)
    printed = [
        [content.ids.get(row.key), row.status, percent(row.score), percent(row.low), percent(row.high), *line]
        for row, line in zip(rows, cells(rows), strict=True)
    ]
    return {
        "judge": measure.judge,
        "metric": readable(measure.metric),
        "label": label,
        "own": asked is None,
        "rows": printed,
        "notes": footnotes(rows, about(content.results, measure)),
    }
