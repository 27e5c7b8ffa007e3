"""Scores against what they cost to train, and the curricula that nothing cheaper beats."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dermsearch.curriculum import RANDOM_WEIGHTS, ROOT_CURRICULUM
from dermsearch.results.drawing import GREY, ORDERS, quantity
from dermsearch.results.report.charts import FORMS, looks, percents, themed, tip, values, x
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el
from dermsearch.results.tables.lineages import ancestry
from dermsearch.words import unit_of


def cost(content: Content) -> PageSection | None:
    """Training time of all stages of a curriculum; one that is shared counts for each."""
    points_of = spent(content)
    if len(points_of) < 2:
        return None
    unit, of = unit_of(max(row["seconds"] for row in points_of))
    rows = [{**row, "time": round(row["seconds"] / of, 2)} for row in points_of]
    best = front(rows)
    kinds = [text for _, _, text in ORDERS.values() if any(row["order"] == text for row in rows)]
    kinds = [ROOT_CURRICULUM] * any(row["order"] == ROOT_CURRICULUM for row in rows) + kinds
    named = ("name", "curriculum"), ("text", "score, % [95 %]"), ("time", f"training, {unit}"), ("order", "order")
    key = {"title": None, "orient": "bottom"}
    at = {"x": x("time", f"training of all its stages, {unit} (mean over seeds)")}
    up = {"y": x("score", quantity(content.rows[0].measure), scale=percents(rows))}
    line = {"mark": {"type": "line", "interpolate": "step-after", "color": "var(--accent)", "strokeWidth": 1.5}}
    ends = {"y": x("low", quantity(content.rows[0].measure), scale=percents(rows)), "y2": {"field": "high"}}
    chart = {
        "width": "container",
        "height": 320,
        "layer": [
            {
                "data": values(rows),
                "mark": {"type": "rule", "color": "var(--grey)", "opacity": 0.45},
                "encoding": {**at, **ends},
            },
            {"data": values(best), **line, "encoding": {**at, **up}},
            {
                "data": values(rows),
                "mark": {"type": "point", "filled": True, "size": 60, "cursor": "pointer", "opacity": 1},
                "encoding": {
                    **at,
                    **up,
                    "shape": looks("order", kinds, [FORMS[of_kind(kind)[1]] for kind in kinds], key),
                    "color": looks("order", kinds, [themed(of_kind(kind)[0]) for kind in kinds], key),
                    "tooltip": tip(*named),
                },
            },
        ],
    }
    names = "; ".join(f"{row['name']} ({row['score']:.1f} %)" for row in best)
    said = el("p", f"The line joins what nothing cheaper beats: {names}. Thin lines: 95 % intervals.", class_="quiet")
    place = el("div", class_="chart", id="chart-cost")
    return PageSection("cost", "Score against cost", Markup(place + said), {"chart-cost": chart})


def spent(content: Content) -> list[dict[str, Any]]:
    """Every scored curriculum with the seconds that its stages took, the mean over its seeds."""
    by_key = {row["key"]: row for row in content.results.stages.to_pylist()}
    found = []
    for row in content.rows:
        if row.score is None or row.curriculum == RANDOM_WEIGHTS:
            continue
        chains = [ancestry(by_key[key], by_key) for key in row.keys if key in by_key] if row.length else []
        times = [[each["seconds"] for each in chain] for chain in chains]
        if row.length and (not times or any(second is None for chain in times for second in chain)):
            continue
        seconds = fmean(sum(chain) for chain in times) if times else 0.0
        order = ORDERS[row.order][2] if row.length else ROOT_CURRICULUM
        ends = f" [{percent(row.low, 1)}, {percent(row.high, 1)}]" if row.low is not None else ""
        bounds = {"low": percent(row.low) if row.low is not None else percent(row.score), "high": percent(row.high)}
        own = {"id": content.ids[row.key], "name": content.name(row.key), "seconds": seconds, "order": order}
        found.append(own | {"score": percent(row.score), "text": f"{percent(row.score, 1)}{ends}"} | bounds)
    return found


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no cheaper one, or one as cheap, is as good as."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["seconds"], -row["score"])):
        if not kept or row["score"] > kept[-1]["score"]:
            kept.append(row)
    return kept


def of_kind(kind: str) -> tuple[str, str]:
    """Colour and marker of an order, those that the PNG has."""
    return next(((colour, marker) for colour, marker, text in ORDERS.values() if text == kind), (GREY, "o"))
