"""Why curricula score as they do: what `dermsearch explain` finds, in its words and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dermsearch.errors import UserError
from dermsearch.results.explain.effects import Effect
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import Explanation, explain
from dermsearch.results.explain.text import chance, clearest, findings, interval, named, notes, points, verdict
from dermsearch.results.report.charts import lined, tip, values, where_known, x
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el, table

LINES = 40  # of the picture: those that stand out most


def why(content: Content) -> PageSection | None:
    """Sentences, a picture of effects and the tables behind it; nothing while a run is under way: it takes long."""
    if not content.whole or sum(row.length > 0 and row.score is not None for row in content.rows) < 3:
        return None
    try:
        found = explain(gather(content.results.folder))
    except UserError:
        return None
    charts = {"chart-why": forest(found)} if forest(found)["data"]["values"] else {}
    picture = "".join(el("div", class_="chart", id=name) for name in charts)
    said = "".join(el("p", text) for text in findings(found))
    quiet = "".join(el("p", text, class_="quiet") for text in notes(found))
    return PageSection("why", "Why", Markup(said + picture + "".join(tables(found)) + quiet), charts)


def forest(found: Explanation) -> dict[str, Any]:
    """Tasks and their places with intervals; hollow what cannot be told."""
    effects = [*found.tasks, *found.places]
    kept = sorted(effects, key=lambda e: -abs(e.value))[:LINES]
    parts = {"task": "in the curriculum", "last": "as the last task", "first": "as the first task", "order": "order"}
    rows = [
        {
            "what": f"{e.name}, {parts.get(e.part, e.part)}",
            "value": percent(e.value),
            "low": percent(e.low),
            "high": percent(e.high),
            "told": verdict(e),
            "against": e.against,
        }
        for e in effects
        if e in kept
    ]
    y = {"field": "what", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 320}}
    title = "effect on the score, percent points"
    told = tip("what", "against", ("value", "points"), ("low", "from"), ("high", "to"), ("told", "told?"))
    hollow = {
        "condition": {"test": "datum.told === 'cannot be told'", "value": "var(--paper)"},
        "value": "var(--accent)",
    }
    zero = {"mark": {"type": "rule", "color": "var(--ink)"}, "encoding": {"x": {"datum": 0}}}
    ends = {"x": x("low", title), "x2": {"field": "high"}, "y": y}
    point = {"type": "point", "size": 50, "stroke": "var(--accent)", "opacity": 1, "strokeWidth": 1.5}
    return {
        "width": "container",
        "height": lined(rows, "what", 20),
        "data": values(rows),
        "layer": [
            zero,
            *where_known(rows, {"mark": {"type": "rule", "color": "var(--accent)"}, "encoding": ends}),
            {"mark": point, "encoding": {"x": x("value", title), "y": y, "fill": hollow, "tooltip": told}},
        ],
    }


def tables(found: Explanation) -> Iterator[Markup]:
    """The tables of `dermsearch explain`, folded."""
    heads = ["", "against", "points [95 %]", "p", "told?"]
    for title, effects in (
        ("What a task adds", found.tasks),
        ("What its place is worth", found.places),
        ("What neighbours are worth", found.pairs),
    ):
        lines = [[named(e), e.against, interval(e), chance(e.adjusted), verdict(e)] for e in clearest(effects)]
        yield from folded(title, heads, lines, 2)
    heads = ["", "beyond", "share, % [95 %]", "as found", "p", "told?"]
    lines = [share(e) for e in found.shares]
    yield from folded("What explains the differences between curricula of several tasks", heads, lines, 2)
    heads = ["", "importance, %", "by chance (95 %)", "p", "told?"]
    lines = [
        [e.name, points(e.value), f"{points(e.low)} to {points(e.high)}", chance(e.adjusted), verdict(e)]
        for e in found.settings
    ]
    yield from folded("Which choices of the search mattered", heads, lines, 1)


def share(e: Effect) -> list[str]:
    """A line of the table of shares."""
    return [e.name, e.against, interval(e, ""), points(e.plain), chance(e.adjusted), verdict(e)]


def folded(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]], words: int) -> Iterator[Markup]:
    """A table behind its title, if it has lines."""
    if lines:
        yield el("details", el("summary", title), table(heads, lines, words, title))
