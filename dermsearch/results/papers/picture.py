"""A filled table of a paper as dots: printed hollow, measured filled with its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsearch.results.drawing import BLUE, GREY, INK, PALE, STYLE, beside, line_panel, save
from dermsearch.results.papers.table import Cell, Entry, Filled, TableColumn, TableSection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, HEADING, EDGE = 0.19, 0.24, 0.06  # inches: a line, a section's title, the panel's own margin
APART = 0.04  # of printed and measured, from the middle of their line
LETTER = 0.066  # a letter of a line's name
WIDE, NARROW, GAP, RIGHT = 2.1, 1.12, 0.2, 0.2  # a panel where there are few or many, between them, beside them
ABOVE, BELOW, TOP = 0.4, 0.55, 0.3  # over a band of panels for their titles, under it for the axis, over all
NOTE = 0.15  # a line of the notes
TITLE, BOLD = 0.19, 0.084  # a further line of the title, and a letter of it

Block = tuple[TableSection, tuple[Entry, ...]]


def picture(table: Filled, path: str | Path) -> list[Path]:
    """Draw the table: a panel for each column, a line for each row; sections with other columns below."""
    import matplotlib
    from matplotlib.figure import Figure

    bands = banded(table)
    across = max(len(band[0][0].columns) for band in bands)
    panel = WIDE if across <= 3 else NARROW
    names = [section.title for section, _ in table.blocks] + [named(e) for _, es in table.blocks for e in es]
    left = 0.35 + LETTER * max(map(len, names))
    wide = left + across * (panel + GAP) - GAP + RIGHT
    notes = [line for note in table.notes for line in textwrap.wrap(note, int(wide / 0.059), subsequent_indent="    ")]
    foot = 0.42 + NOTE * len(notes)
    title = textwrap.wrap(heading(table), int((wide - 0.3) / BOLD))
    above = TOP + TITLE * (len(title) - 1)
    high = above + sum(tall(band) + ABOVE + BELOW for band in bands) + foot
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        figure.text(0.15 / wide, 1 - 0.1 / high, "\n".join(title), fontsize=10.5, fontweight="bold", va="top")
        top = above
        for band in bands:
            top += ABOVE
            section = band[0][0]
            for i, column in enumerate(section.columns):
                corner = (left + i * (panel + GAP)) / wide, 1 - (top + tall(band)) / high
                ax = figure.add_axes((*corner, panel / wide, tall(band) / high))
                frame(ax, band, column, i)
                cls = f"\n{column.cls}" if section.quantity and column.cls else ""
                printed = any(entry.cells[i].printed for _, entries in band for entry in entries)
                ax.set_title((table.heading(column) if printed else column.heading) + cls, fontsize=8.5)
                draw(ax, band, i)
            top += tall(band) + BELOW
            if section.quantity:
                middle = (left + (across * (panel + GAP) - GAP) / 2) / wide
                figure.text(middle, 1 - (top - BELOW + 0.42) / high, section.quantity, ha="center", va="center")
        legend(figure, table, (foot - 0.2) / high)
        for i, line in enumerate(reversed(notes)):
            figure.text(0.15 / wide, (0.1 + NOTE * i) / high, line, fontsize=7.5, color="#555555")
        return save(figure, path)


def heading(table: Filled) -> str:
    """What the figure shows."""
    return f"{table.form.title}, beside study {table.study}"


def banded(table: Filled) -> list[list[Block]]:
    """Sections with the same columns share their panels; others have a band of panels of their own."""
    bands: list[list[Block]] = []
    for block in table.blocks:
        if bands and bands[-1][0][0].columns == block[0].columns:
            bands[-1].append(block)
        else:
            bands.append([block])
    return bands


def tall(band: Sequence[Block]) -> float:
    """The height of a band's panels in inches."""
    return 2 * EDGE + sum(HEADING + ROW * len(entries) for _, entries in band)


def places(band: Sequence[Block]) -> list[tuple[float, TableSection | Entry]]:
    """What stands at which height, from the panel's top downwards in inches."""
    found: list[tuple[float, TableSection | Entry]] = []
    y = EDGE
    for section, entries in band:
        found.append((y + HEADING / 2, section))
        y += HEADING
        for entry in entries:
            found.append((y + ROW / 2, entry))
            y += ROW
    return found


def named(entry: Entry) -> str:
    """A line's name, and what became of it if it was begun and has no number."""
    return entry.title if entry.status in ("done", "not run") else f"{entry.title}  × {entry.status}"


def frame(ax: Axes, band: Sequence[Block], column: TableColumn, index: int) -> None:
    """The panel's axes, and at the first one the names of the lines."""
    line_panel(ax, tall(band))
    if column.axis:
        ax.set_xlabel(column.axis, fontsize=8.5)
    ax.tick_params(axis="x", labelsize=7.5)
    if column.log:
        ax.set_xscale("log")
    cells = [e.cells[i] for _, es in band for e in es for i in range(len(e.cells)) if band[0][0].quantity or i == index]
    limits(ax, cells, column)
    for y, what in places(band):
        name = named(what) if isinstance(what, Entry) else what.title
        if isinstance(what, Entry):
            ax.axhline(y, color=PALE, linewidth=0.5, zorder=0)
        if index == 0:
            weight = "bold" if isinstance(what, TableSection) else "normal"
            colour = GREY if isinstance(what, Entry) and not what.measured else INK
            beside(ax, name, 0, y, -8, ha="right", fontsize=8.5, fontweight=weight, color=colour)


def limits(ax: Axes, cells: Sequence[Cell], column: TableColumn) -> None:
    """Room for every number and interval of these cells, and for chance."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values = [float(text) for cell in cells for text in (cell.printed, cell.corrected) if text] + levels(cells, column)
    for cell in cells:
        if cell.value:
            values += [v for v in (cell.value.mean, cell.value.low, cell.value.high) if v is not None]
    if not values:
        return
    low, high = min(values), max(values)
    if column.log:
        ax.set_xlim(min(1.0, low) / 1.15, high * 1.25)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        span = max(high - low, 0.02 * column.scale if column.part else 0.1 * abs(high))
        ends = low - 0.06 * span, high + 0.06 * span
        ax.set_xlim(*ends)
        ticks = MaxNLocator(3 if column.scale > 1 or not column.part else 5).tick_values(*ends)
        # An interval of Student's t may reach beyond all that a share can be; the scale does not.
        most = min(ends[1], column.scale) if column.part else ends[1]
        ax.set_xticks([tick for tick in ticks if ends[0] <= tick <= most])


def levels(cells: Sequence[Cell], column: TableColumn) -> list[float]:
    """Chance, for the study's number of cases and for the paper's."""
    if column.chance is None:
        return []
    counts = {cell.value.n for cell in cells if cell.value and cell.value.n}
    printed = {column.cases} if column.cases else set()
    return list(dict.fromkeys(column.chance(n) for n in (max(counts, default=0), *printed) if n))


def draw(ax: Axes, band: Sequence[Block], index: int) -> None:
    """The dots of one column."""
    cells = [entry.cells[index] for _, entries in band for entry in entries]
    column = cells[0].column
    for level, style in zip(levels(cells, column), ("--", ":"), strict=False):
        ax.axvline(level, color=GREY, linewidth=1, linestyle=style, zorder=1)
    for y, what in places(band):
        if isinstance(what, TableSection):
            continue
        cell = what.cells[index]
        apart = APART if cell.printed and cell.value else 0.0
        if cell.printed:
            ax.plot([float(cell.printed)], [y - apart], "o", **HOLLOW)
        if cell.corrected:
            ax.plot([float(cell.corrected)], [y - apart], "x", color=INK, markersize=5)
        if cell.value:
            if cell.value.low is not None and cell.value.high is not None:
                ax.plot([cell.value.low, cell.value.high], [y + apart] * 2, color=BLUE, linewidth=1.3, alpha=0.75)
            ax.plot([cell.value.mean], [y + apart], "o", **FULL)


Look = dict[str, Any]
HOLLOW: Look = {"color": INK, "markerfacecolor": "white", "markersize": 4.8, "markeredgewidth": 1.1, "zorder": 3}
FULL: Look = {"color": BLUE, "markersize": 5.2, "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 4}


def legend(figure: Figure, table: Filled, y: float) -> None:
    """What the marks are; chance where it is drawn."""
    from matplotlib.lines import Line2D

    spread = any(c.value and c.value.low is not None for _, entries in table.blocks for e in entries for c in e.cells)
    handles = [
        Line2D([], [], linestyle="", marker="o", label="paper (other data or split)", **HOLLOW),
        Line2D([], [], linestyle="-", marker="o", label="here, 95 % interval" if spread else "here", **FULL),
    ]
    if any(cell.corrected for _, entries in table.blocks for entry in entries for cell in entry.cells):
        handles.append(Line2D([], [], linestyle="", marker="x", color=INK, label="paper, corrected"))
    columns = [column for section, _ in table.blocks for column in section.columns]
    if any(column.chance for column in columns):
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="chance"))
    if any(column.cases for column in columns):
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="chance, paper's number of cases"))
    figure.legend(handles=handles, loc="center", bbox_to_anchor=(0.5, y), ncols=4, frameon=False, fontsize=8)
