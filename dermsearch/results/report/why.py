"""Why curricula score as they do: what `dermsearch explain` finds, in its words and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dermsearch.errors import UserError
from dermsearch.results.explain.evidence import from_study
from dermsearch.results.explain.explain import Explanation, explain
from dermsearch.results.explain.text import effect_tables, findings, notes, verdict
from dermsearch.results.report.charts import lined, tip, values, where_known, x
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el, table

LINES = 40  # of the picture: those that stand out most


def why(content: Content) -> PageSection | None:
    """Sentences, a picture of effects and the tables behind it; nothing while a run is under way: it takes long."""
    if not content.whole or sum(row.length > 0 and row.score is not None for row in content.rows) < 3:
        return None
    try:
        found = explain(from_study(content.results))
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
    """The tables of `dermsearch explain`, each folded behind its title, if it has lines."""
    shares, *effects, choices = effect_tables(found)
    for each in (*effects, shares, choices):
        if each.lines:
            heads = [head.replace("  ", " ") for head in each.headings]
            words = 1 if each is choices else 2
            yield el("details", el("summary", each.title), table(heads, each.lines, words, each.title))
