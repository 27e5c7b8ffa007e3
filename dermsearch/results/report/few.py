"""Scores against the number of labelled cases: the curves of the PNG, from the same functions."""

from __future__ import annotations

from typing import Any

from dermsearch.results.drawing import readable
from dermsearch.results.pictures.few_labels import chosen, curves, judges
from dermsearch.results.report.charts import coloured, marked, percents, tip, values, where_known, x
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el


def few(content: Content) -> PageSection | None:
    """A picture for each judge that learnt from several numbers of labels."""
    found = {judge: curves(content.results, judge, numbers) for judge, numbers in judges(content.results).items()}
    found = {judge: of for judge, of in found.items() if of}
    if not found:
        return None
    shown = chosen(found)
    names = [content.name(key) for key in shown]
    charts = {}
    for i, (judge, of) in enumerate(found.items()):
        numbers = judges(content.results)[judge]
        rows = [
            {
                "name": content.name(key),
                "labels": number,
                "score": percent(row.score),
                "low": percent(row.low),
                "high": percent(row.high),
            }
            for key in shown
            for number in numbers
            if (row := of.get(key, {}).get(number)) is not None
        ]
        metric = readable(next(iter(next(iter(of.values())).values())).measure.metric)
        charts[f"chart-few-{i}"] = lines(rows, names, numbers, f"{metric}, {judge}, %")
    said = "Labelled cases of every class. Bands: 95 % intervals."
    places = "".join(el("div", class_="chart", id=name) for name in charts)
    return PageSection("few", "From few labels", Markup(el("p", said, class_="quiet") + places), charts)


def lines(rows: list[dict[str, Any]], names: list[str], numbers: list[str], title: str) -> dict[str, Any]:
    """A line with its band for each curriculum."""
    at = {
        "field": "labels",
        "type": "ordinal",
        "sort": numbers,
        "title": "labelled cases of every class",
        "axis": {"labelAngle": 0},
    }
    colour = coloured("name", names)
    told = tip(("name", "curriculum"), "labels", ("score", "%"), ("low", "from"), ("high", "to"))
    band = {"y": x("low", title, scale=percents(rows)), "y2": {"field": "high"}}
    up = {"y": x("score", title, scale=percents(rows))}
    mark = {"type": "line", "strokeWidth": 1.8}
    dots = {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 1}}
    return {
        "width": "container",
        "height": 280,
        "data": values(rows),
        "layer": [
            *where_known(
                rows, {"mark": {"type": "area", "opacity": 0.12}, "encoding": {"x": at, **band, "color": colour}}
            ),
            {"mark": mark, "encoding": {"x": at, **up, "color": colour}},
            {
                **dots,
                "encoding": {"x": at, **up, "color": colour, "shape": marked("name", names), "tooltip": told},
            },
        ],
    }
