"""How stages learnt: loss, and what tells of a collapse, a panel for each task; and the curves of a single stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dermsearch.results.pictures.curves import PLACES, shown, stages_of
from dermsearch.results.report.charts import looks, near, themed, tip, x
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el

MOST = 40  # epochs of a stage that are drawn: of more, as many at even steps, the last among them
COLUMNS = ("epoch", "loss", "embedding_std", "effective_rank", "val_loss")
TOLD = ("task", "place", "of")  # of a stage, beside its numbers
WHAT = {
    "loss": "loss",
    "embedding_std": "spread of embeddings",
    "effective_rank": "effective rank",
}
COLLAPSED = 0.1  # of the spread: near 1 is healthy, near 0 all embeddings are one


def learning(content: Content) -> PageSection | None:
    """The curves of all stages; which stages look as if they collapsed is said in words."""
    stages = curves_of(content.results.epochs.to_pylist())
    shown = [what for what in WHAT if any(there(curve, what) for curve in stages.values())]
    if not shown:
        return None
    # Of one epoch alone there is no line: a panel of such stages would be empty.
    charts = {f"chart-{what}": panels([c for c in stages.values() if there(c, what)], what) for what in shown}
    said = [
        el("p", "Spread of embeddings: near 1 is healthy, near 0 every picture is embedded alike.", class_="quiet"),
        *([el("p", collapsed(stages), class_="caution")] if collapsed(stages) else []),
    ]
    parts = [el("div", class_="chart", id=name) for name in charts]
    # Every picture is of the same numbers, so they travel once; the page's script makes rows of them.
    about = {key: {name: curve[name] for name in TOLD} for key, curve in stages.items()}
    data = {"curves": {key: curve["values"] for key, curve in stages.items()}, "columns": COLUMNS, "about": about}
    return PageSection("learning", "Learning curves", Markup("".join([*said, *parts])), charts, data)


def curves_of(epochs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By stage its task, its place in the curriculum and a row of numbers per epoch that is drawn."""
    found = {}
    for key, rows, place in stages_of(epochs):
        numbers = [[short(row[name]) for name in COLUMNS] for row in thinned(rows)]
        name = rows[0]["curriculum"] if place else f"{rows[0]['task']} fitted to {rows[0]['curriculum']}"
        about = {"task": rows[0]["task"], "fit": not place, "place": PLACES[shown(place)][1]}
        found[key] = {**about, "of": f"{name}, seed {rows[0]['seed']}", "values": numbers}
    return found


def thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most so many, the first and the last among them."""
    if len(rows) <= MOST:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (MOST - 1))] for i in range(MOST)]


def short(value: float | None) -> float | None:
    """A number in five digits; what is not finite is none."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.5g}")


def there(curve: Mapping[str, Any], what: str) -> bool:
    """Has the stage two numbers to join?"""
    at = COLUMNS.index(what)
    return sum(numbers[at] is not None for numbers in curve["values"]) > 1


def panels(curves: Sequence[Mapping[str, Any]], what: str) -> dict[str, Any]:
    """A panel for each task, then for each fit; a line for each stage, coloured by its place as in the PNG."""
    order = [task for _, task in sorted({(curve["fit"], curve["task"]) for curve in curves})]
    used = [(colour, name) for colour, name in PLACES if any(curve["place"] == name for curve in curves)]
    key = {"title": "as its curriculum's task", "orient": "bottom"}
    colour = looks("place", [name for _, name in used], [themed(colour) for colour, _ in used], key)
    mark = {"type": "line", "strokeWidth": 1.1, "opacity": 0.85, "cursor": "pointer"}
    held = what == "loss" and any(there(curve, "val_loss") for curve in curves)
    layers = [{"mark": mark, "encoding": {"y": x(what, WHAT[what], scale=near())}}]
    if held:
        dashed = {"mark": {**mark, "strokeDash": [4, 3]}, "encoding": {"y": x("val_loss", WHAT[what], scale=near())}}
        layers.append(dashed)
    whole = {"tickMinStep": 1, "tickCount": 6, "format": "d", "labelExpr": "datum.value % 1 ? '' : datum.label"}
    steps = x("epoch", "epoch", axis=whole, scale={"nice": False, "zero": False})
    told = tip(("of", "stage"), "epoch", (what, WHAT[what]), *([("val_loss", "on validation images")] if held else []))
    return {
        "data": {"name": "curves"},
        "transform": [{"filter": {"field": "task", "oneOf": order}}],
        "facet": {"field": "task", "type": "nominal", "sort": order, "title": None, "header": {"labelFontWeight": 600}},
        "align": "all",
        "bounds": "flush",  # or panels stand apart by how wide the numbers on their axes are
        "spacing": {"row": 88, "column": 64},
        "spec": {
            "width": 275,
            "height": 150,
            "encoding": {"x": steps, "color": colour, "detail": {"field": "stage"}, "tooltip": told},
            "layer": layers,
        },
        "resolve": {"scale": {"y": "independent", "x": "independent"}},
    }


def collapsed(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Those whose embeddings ended near a single point."""
    at = COLUMNS.index("embedding_std")
    low = [
        f"{curve['of']} ({last:.2g})"
        for curve in stages.values()
        if curve["values"] and (last := curve["values"][-1][at]) is not None and last < COLLAPSED
    ]
    more = f" and {len(low) - 8} more" if len(low) > 8 else ""
    return f"Looks collapsed, spread below {COLLAPSED}: {'; '.join(low[:8])}{more}." if low else ""
