"""Several studies on one page: what each settles, what they differ in, and their curricula side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermsearch.curriculum import titled
from dermsearch.results.board.leaderboard import apart, points
from dermsearch.results.board.settled import settled
from dermsearch.results.drawing import quantity
from dermsearch.results.report.charts import lined, ranges, tip, values
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el, table
from dermsearch.results.report.page import page, put
from dermsearch.results.report.question import asked
from dermsearch.results.tables.lineages import Key, flatten
from dermsearch.results.tables.schema import load

LONGEST = 60  # curricula side by side: the best of any study


def compare(folders: Sequence[Path], path: Path) -> Path:
    """Write the page that compares the studies of these folders; where it lies."""
    contents = [Content(load(folder)) for folder in folders]
    names = named(contents)
    sections = [overview(contents, names), side_by_side(contents, names), settings(contents, names)]
    state = {"alive": False, "written": time.time()}
    put(page(f"Comparison of {', '.join(names)}", [s for s in sections if s is not None], state), path)
    return path


def named(contents: Sequence[Content]) -> list[str]:
    """The studies' names; where two share one, their folders."""
    names = [str(content.results.study.get("name") or content.results.folder.name) for content in contents]
    return names if len(set(names)) == len(names) else [str(content.results.folder) for content in contents]


def overview(contents: Sequence[Content], names: Sequence[str]) -> PageSection:
    """What each asks and settles, and the few numbers that answer."""
    lines, said = [], []
    for content, name in zip(contents, names, strict=True):
        told = settled(content.rows, content.results) if content.rows else "Nothing has been scored yet."
        said += [el("h3", name), el("p", asked(content)), *[el("p", told)] * bool(told)]
        for row in content.shown:
            ends = f" [{points(row.low)}, {points(row.high)}]" if row.low is not None else ""
            lines.append([name, content.name(row.key), row.measure.judge, points(row.score) + ends, apart(row.to_none)])
    heads = ["study", "curriculum", "judge", "score, % [95 %]", "Δ no pre-training"]
    note = "Scores of studies with other data, labels or judges are not differences of curricula."
    body = Markup("".join(said)) + table(heads, lines, 3, "Overview") + el("p", note, class_="quiet")
    return PageSection("overview", "What they settle", Markup(body))


def side_by_side(contents: Sequence[Content], names: Sequence[str]) -> PageSection | None:
    """Curricula by what each study gives them; every study by its own objective."""
    best: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for content, study in zip(contents, names, strict=True):
        for row in content.rows:
            if row.score is None:
                continue
            what = plain(row.key)
            best[what] = max(best.get(what, row.score), row.score)
            own = {"study": study, "what": what, "settings": content.name(row.key)}
            rows.append(own | {"score": percent(row.score), "low": percent(row.low), "high": percent(row.high)})
    if not rows:
        return None
    kept = sorted(best, key=lambda what: -best[what])[:LONGEST]
    rows = [row for row in rows if row["what"] in kept]
    y = {"field": "what", "type": "nominal", "title": None, "sort": kept, "axis": {"labelLimit": 320}}
    measures = dict.fromkeys(quantity(content.rows[0].measure) for content in contents if content.rows)
    title = [*measures] if len(measures) > 1 else next(iter(measures))  # of several each on a line of its own
    told = tip("study", ("settings", "curriculum"), ("score", "%"), ("low", "from"), ("high", "to"))
    chart = {
        "width": "container",
        "height": lined(rows, "what", 10 * len(names) + 4),
        "data": values(rows),
        "layer": ranges(rows, "study", names, title, y, told),
    }
    more = len(best) - len(kept)
    note = f"The {len(kept)} best of {len(best)}. " if more > 0 else ""
    said = el("p", f"{note}Each study by its own objective; lines: 95 % intervals.", class_="quiet")
    place = el("div", class_="chart", id="chart-side")
    return PageSection("side", "Curricula side by side", Markup(said + place), {"chart-side": chart})


def plain(key: Key) -> str:
    """A curriculum without what tells its settings: that differs from study to study."""
    return titled(key.root, str(key.curriculum))


def settings(contents: Sequence[Content], names: Sequence[str]) -> PageSection:
    """The fields of the study files that differ."""
    flat = [flatten(content.results.study) for content in contents]
    fields = dict.fromkeys(field for each in flat for field in each if field != "name")
    told = {field: [json.dumps(each.get(field), default=str) for each in flat] for field in fields}
    lines = [[field, *values_] for field, values_ in told.items() if len(set(values_)) > 1]
    made = [["made by", *(content.results.origin for content in contents)]]
    body = table(["field", *names], [*lines, *made], 1 + len(names), "Settings")
    return PageSection("settings", "What they differ in", body)
