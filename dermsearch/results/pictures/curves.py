"""How stages learnt: the loss of each over its epochs, a panel for each task, and what a task measures beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import Curriculum
from dermsearch.results.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, STYLE, VERMILION, grid, readable, save
from dermsearch.results.tables.lineages import differences, lineages
from dermsearch.results.tables.schema import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of a task in its curriculum, from 1; before them what is no task of it.
PLACES = (
    (PURPLE, "fitted to labels"),
    *((INK, "first"), (BLUE, "second"), (VERMILION, "third"), (GREEN, "fourth"), (ORANGE, "later")),
)
COLOURS = (INK, BLUE, VERMILION, GREEN, ORANGE, PURPLE)  # of settings
ACROSS, PANEL, HIGH, LEFT, BELOW, APART, ABOVE = 4, 2.6, 1.9, 0.6, 0.75, 0.62, 0.8  # panels in a row; inches
MEASURED = ("accuracy",)  # parts that have a panel of their own


@dataclass(frozen=True)
class Line:
    """One stage in one panel."""

    place: int  # of its task in the curriculum, from 1; 0 for a fit
    epochs: list[int]
    values: list[float]
    held: list[float]  # on validation images, where the stage looked; else empty
    told: str = ""  # the settings that tell it from others of its task


def curves_figure(results: Results, path: str | Path) -> list[Path]:
    """Draw it, as PNG and SVG; nothing where no stage has two epochs."""
    panels = panels_of(results.epochs.to_pylist(), settings_of(results))
    if not panels:
        return []
    import matplotlib
    from matplotlib.figure import Figure

    across, rows = min(ACROSS, len(panels)), -(-len(panels) // ACROSS)
    wide, high = LEFT + across * (PANEL + APART), rows * (HIGH + ABOVE) + BELOW
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(wide, 4.4), high))
        names = kinds(panels)
        for i, ((task, what), lines) in enumerate(panels.items()):
            row, column = divmod(i, ACROSS)
            left, top = LEFT + column * (PANEL + APART), (row + 1) * (HIGH + ABOVE) - 0.45
            place = (left / max(wide, 4.4), 1 - top / high, PANEL / max(wide, 4.4), HIGH / high)
            draw(figure.add_axes(place), task, what, lines, names)
        legend(figure, panels, names, high)
        return save(figure, path, results.origin)


def settings_of(results: Results) -> dict[str, str]:
    """By stage, what tells the settings of its task from those of others."""
    found = lineages(results)
    told = differences(found)
    return {
        stage["key"]: told[key].get(key.curriculum.tasks[-1], "")
        for key, line in found.items()
        for stage in line.stages
    }


def kinds(panels: Mapping[tuple[str, str], Sequence[Line]]) -> dict[str, tuple[str, str]]:
    """What colours tell, each with its words: settings, where all tasks come first and some differ by theirs."""
    lines = [(task, line) for (task, _), own in panels.items() for line in own]
    told = sorted({line.told for _, line in lines if line.told}, key=natural)
    if told and all(line.place == 1 for _, line in lines) and len(told) < len(COLOURS):
        bare = dict.fromkeys(readable(task) for task, line in lines if not line.told)
        names = {"": ", ".join(bare)} if bare else {}
        return {t: (c, n) for c, (t, n) in zip(COLOURS, (names | {t: t for t in told}).items(), strict=False)}
    seen = sorted({shown(line.place) for _, line in lines}, key=lambda n: (not n, n))
    return {str(n): (PLACES[n][0], f"as {PLACES[n][1]} task" if n else PLACES[n][1]) for n in seen}


def shown(place: int) -> int:
    """The place as it is told: those behind the fourth together."""
    return min(place, len(PLACES) - 1)


def natural(told: str) -> list[Any]:
    """weight=0.5 before weight=10: what settings are sorted by."""
    return [
        (float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(re.split(r"([0-9]+(?:[.][0-9]+)?)", told))
    ]


def kind_of(line: Line, names: Mapping[str, tuple[str, str]]) -> str:
    """Which of these kinds a line is."""
    return line.told if line.told in names else str(shown(line.place))


def stages_of(epochs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]], int]]:
    """Every stage with its rows in their order, and the place of its task in the curriculum, from 1; 0 for a fit."""
    of: dict[str, list[Mapping[str, Any]]] = {}
    for row in epochs:
        of.setdefault(row["stage"], []).append(row)
    for key, rows in of.items():
        rows.sort(key=lambda row: row["epoch"])
        order = Curriculum.parse(rows[0]["curriculum"]).tasks
        yield key, rows, len(order) if order and order[-1] == rows[0]["task"] else 0


def panels_of(
    epochs: Sequence[Mapping[str, Any]], told: Mapping[str, str] = MappingProxyType({})
) -> dict[tuple[str, str], list[Line]]:
    """By task and what is measured the lines of its stages, tasks in the order of the table."""
    panels: dict[tuple[str, str], list[Line]] = {}
    for key, rows, place in stages_of(epochs):
        if len(rows) < 2:
            continue
        task, at = rows[0]["task"], [row["epoch"] for row in rows]
        held = [row["val_loss"] for row in rows]
        own = Line(place, at, [row["loss"] for row in rows], held if None not in held else [], told.get(key, ""))
        panels.setdefault((task, "loss"), []).append(own)
        parts, there = ([json.loads(row.get(name) or "{}") for row in rows] for name in ("parts", "val_parts"))
        for what in MEASURED:
            if all(what in part for part in parts):
                held = [100 * part[what] for part in there if what in part]
                held = held if len(held) == len(rows) else []
                measured = Line(place, at, [100 * part[what] for part in parts], held, told.get(key, ""))
                panels.setdefault((task, f"{what} (%)"), []).append(measured)
    return panels


def draw(ax: Axes, task: str, what: str, lines: Sequence[Line], names: Mapping[str, tuple[str, str]]) -> None:
    """The lines of one panel: solid for training, dashed for validation images."""
    from matplotlib.ticker import MaxNLocator

    for line in lines:
        colour = names[kind_of(line, names)][0]
        ax.plot(line.epochs, line.values, color=colour, linewidth=0.9, alpha=0.8)
        if line.held:
            ax.plot(line.epochs, line.held, color=colour, linewidth=0.9, alpha=0.8, linestyle="--")
    ax.set_title(readable(task), fontsize=9.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(what)
    grid(ax)


def legend(
    figure: Any, panels: Mapping[tuple[str, str], Sequence[Line]], names: Mapping[str, tuple[str, str]], high: float
) -> None:
    """What the colours and dashes are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=name) for colour, name in names.values()]
    if any(line.held for lines in panels.values() for line in lines):
        handles.append(Line2D([], [], color=INK, linestyle="--", label="on validation images"))
    place = (0.5, 0.18 / high)
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=place, ncols=len(handles), frameon=False, fontsize=8
    )
