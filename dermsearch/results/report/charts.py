"""What the pictures of a page share: Vega-Lite with the page's own colours, which change with its theme."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dermsearch.errors import UserError
from dermsearch.results.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION

Chart = dict[str, Any]
# The colours of drawing.py, as the page's style sheet names them: on a dark page each is lighter.
NAMES = {INK: "ink", BLUE: "blue", VERMILION: "vermilion", GREEN: "green", PURPLE: "purple", ORANGE: "orange"}
FORMS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down"}  # matplotlib's
COLOURS = ["var(--grey)", "var(--blue)", "var(--vermilion)", "var(--green)", "var(--purple)", "var(--orange)"]
SHAPES = ["circle", "diamond", "square", "triangle-up", "triangle-down", "cross"]
# A legend as strong as the marks, whatever band or line lies behind them.
KEY: Chart = {"orient": "bottom", "symbolOpacity": 1}
PRINT = "import vl_convert, sys; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, out of the installed package.

    It is asked for in a process of its own, since the package brings an engine that would stay in memory.
    """
    made = subprocess.run([sys.executable, "-c", PRINT], capture_output=True)
    if made.returncode:
        said = made.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
        raise UserError(f"vl-convert-python: gives no script for the pictures of a report ({said[-1][:200]})")
    return made.stdout.decode()


def themed(colour: str) -> str:
    """A colour of the figures as the page names it."""
    return f"var(--{NAMES.get(colour, 'grey')})"


def values(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Rows as the data of a picture."""
    return {"values": list(rows)}


def x(name: str, title: str | list[str], **more: Any) -> Chart:
    """A number along the picture."""
    return {"field": name, "type": "quantitative", "title": title, "axis": {"tickCount": 8}, **more}


def lined(rows: Sequence[Mapping[str, Any]], name: str, step: int) -> int:
    """The height of a picture with a line for each value of a column: a browser gives it its width alone."""
    return max(40, step * len({row[name] for row in rows}))


def near() -> Chart:
    """An axis that need not reach zero."""
    return {"zero": False, "nice": True, "padding": 8}


def percents(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """An axis of scores and their intervals, of which none lies below 0 or above 100."""
    known = [row[end] for row in rows for end in ("low", "high", "score") if row[end] is not None]
    low, high = min(known), max(known)
    room = 0.03 * (high - low) or 1.0
    return {"zero": False, "nice": True, "domain": [min(low, max(0.0, low - room)), max(high, min(100.0, high + room))]}


def looks(name: str, domain: Sequence[str], shown: Sequence[str], legend: Chart) -> Chart:
    """Names and the colour or shape of each."""
    scale = {"domain": list(domain), "range": list(shown)}
    return {"field": name, "type": "nominal", "scale": scale, "legend": legend}


def coloured(name: str, domain: Sequence[str]) -> Chart:
    """Colours of the project in their order, for few names."""
    return looks(name, domain, COLOURS[: len(domain)], {**KEY, "title": None})


def marked(name: str, domain: Sequence[str]) -> Chart:
    """The same names as shapes, for who sees no colours."""
    return looks(name, domain, SHAPES[: len(domain)], {**KEY, "title": None})


def where_known(rows: Sequence[Mapping[str, Any]], ends: Chart) -> list[Chart]:
    """The layer of intervals, if any row has one: of none an axis cannot be made."""
    return [ends] if any(row["low"] is not None for row in rows) else []


def ranges(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    domain: Sequence[str],
    title: str | list[str],
    y: Chart,
    told: list[Chart],
) -> list[Chart]:
    """Scores as points on their intervals, those of each name of the domain beside the others' in a row of y."""
    place = {"y": y, "yOffset": {"field": name, "sort": list(domain)}, "color": coloured(name, domain)}
    axis = percents(rows)
    ends = {"x": x("low", title, scale=axis), "x2": {"field": "high"}, **place}
    score = {"x": x("score", title, scale=axis), **place, "shape": marked(name, domain), "tooltip": told}
    return [
        *where_known(rows, {"mark": {"type": "rule", "opacity": 0.6}, "encoding": ends}),
        {"mark": {"type": "point", "filled": True, "size": 42, "opacity": 1}, "encoding": score},
    ]


def tip(*fields: tuple[str, str] | str) -> list[Chart]:
    """What a picture tells of what the pointer is on."""
    pairs = [(each, each) if isinstance(each, str) else each for each in fields]
    return [{"field": name, "title": title} for name, title in pairs]
