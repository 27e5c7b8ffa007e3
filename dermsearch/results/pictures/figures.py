"""The figures of a study, drawn from its tables alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import ROOT_CURRICULUM, Curriculum
from dermsearch.errors import UserError
from dermsearch.papers.published import IMAGENET, named_tables, published, table
from dermsearch.results.board.about import PATIENTS
from dermsearch.results.board.leaderboard import MARKS, Row, kind_of_interval, leaderboard, ordering
from dermsearch.results.board.opened import Opened, Tested, notes, opened
from dermsearch.results.drawing import (
    GREY,
    INK,
    ORDERS,
    PALE,
    SIZES,
    STYLE,
    beside,
    chain,
    judge_name,
    line_panel,
    quantity,
    save,
)
from dermsearch.results.papers.files import write_files
from dermsearch.results.papers.picture import picture
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.pictures.attention import attention_figure
from dermsearch.results.pictures.curves import curves_figure
from dermsearch.results.pictures.few_labels import few_labels_figure
from dermsearch.results.pictures.tree import tree_figure
from dermsearch.results.tables.lineages import differences
from dermsearch.results.tables.schema import Results, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curriculum_figure", "figures", "tree_figure"]

GROUPS = [ROOT_CURRICULUM, "one task", "two tasks", "three tasks", "four tasks", "five tasks"]
ROW, HEADING = 0.2, 0.28  # inches
BOTTOM, RIGHT, BETWEEN = 1.25, 0.2, 0.3  # with two lines of notes
LINE, LETTERS = 0.15, 17  # inches of a further one, and what goes on an inch of it
TEST, TEST_MARK, BELOW = "on test", "D", 0.075  # what it is called, and how far below validation it stands, in inches
TOP = {1: 0.35, 2: 0.5}  # room for the titles, by the number of panels
PANEL = {1: 5.0, 2: 3.5}  # width of a panel by the number of panels
FULL: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 3}
HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.3, "zorder": 3}


@dataclass(frozen=True)
class FigureLine:
    """One line of the figure: a row of the leaderboard at its height, or a heading over some."""

    y: float  # inches from the first line's top, downwards
    text: str
    row: Row | None


def figures(folder: str | Path) -> list[Path]:
    """Draw all figures of the study in a folder into its figures/, as PNG and SVG.

    The tables of papers that the study names go to its tables_of_paper/, as CSV, Markdown, LaTeX, PNG and SVG.
    """
    results = load(folder)
    target = Path(folder) / "figures"
    drawn = curriculum_figure(results, target / "curriculum") + tree_figure(results, target / "tree")
    drawn += few_labels_figure(results, target / "few_labels") + curves_figure(results, target / "curves")
    drawn += attention_figure(results, target / "attention")
    for name in named_tables(results.study, FORMS):
        if name in FORMS:
            table = fill(results, FORMS[name])
            path = Path(folder) / "tables_of_paper" / name
            drawn += write_files(table, path) + picture(table, path)
    return drawn


def curriculum_figure(results: Results, path: str | Path) -> list[Path]:
    """The score of every curriculum by its number of tasks, beside a paper's where the study names a table.

    The study names it as `published: aiseeme_table1`, at its top or in its objective.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not (rows := leaderboard(results)):
        raise UserError(f"{results.folder}: no encoder has a score by its objective")
    seen = opening(results)
    name = next((name for name in named_tables(results.study, FORMS) if name not in FORMS), None)
    panels = 2 if name else 1
    lines, tall = layout(rows)
    left = 0.35 + 0.068 * max(len(line.text) for line in lines)
    wide = left + panels * PANEL[panels] + (panels - 1) * BETWEEN + RIGHT
    said = wrapped("\n".join([note(rows), *([on_test(seen)] if seen else [])]), wide)
    below = BOTTOM + LINE * max(0, said.count("\n") - 1)
    high = TOP[panels] + tall + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        lefts = [(left + i * (PANEL[panels] + BETWEEN)) / wide for i in range(panels)]
        axes = [figure.add_axes((at, below / high, PANEL[panels] / wide, tall / high)) for at in lefts]
        frame(axes, lines, tall)
        draw_measured(axes[0], lines, rows, seen.tested if seen else ())
        measure = rows[0].measure
        study = results.study.get("name") or results.folder.name
        axes[0].set_title(f"measured: {study} ({judge_name(measure)})", fontsize=9.5)
        axes[0].set_xlabel(quantity(measure))
        marks = {row.order for row in rows if row.length}
        if name:
            marks |= draw_published(axes[1], lines, name)
        legend(figure, said, marks, high, bool(name), bool(seen))
        return save(figure, path, results.origin)


def layout(rows: list[Row]) -> tuple[list[FigureLine], float]:
    """The lines from top to bottom, grouped by length and sorted in a group, and their height in inches."""
    told = differences(row.key for row in rows)
    lines: list[FigureLine] = []
    y = 0.06
    for length in sorted({row.length for row in rows}):
        inside = [row for row in rows if row.length == length]
        if length:  # a baseline is its own heading
            y += HEADING
            title = GROUPS[length] if length < len(GROUPS) else f"{length} tasks"
            lines.append(FigureLine(y - 0.09, title, None))
        for row in inside:
            lines.append(FigureLine(y + ROW / 2, chain(row.tasks, told[row.key], row.root), row))
            y += ROW
    return lines, y + 0.06


def frame(axes: list[Axes], lines: list[FigureLine], tall: float) -> None:
    """The lines' names at the left, and faint guides through all panels."""
    for i, ax in enumerate(axes):
        line_panel(ax, tall)
        for line in lines:
            if line.row is None:
                ax.axhline(line.y + 0.08, color=INK, linewidth=0.7)
            else:
                ax.axhline(line.y, color=PALE, linewidth=0.5, zorder=0)
            if i:
                continue
            weight = "bold" if line.row is None or not line.row.length else "normal"
            colour = GREY if line.row is not None and line.row.score is None else INK
            beside(ax, line.text, 0, line.y, -8, ha="right", fontweight=weight, color=colour, fontsize=8.5)


def opening(results: Results) -> Opened | None:
    """What was found on the test split, where it was opened for what is drawn."""
    try:
        found = opened(results)
    except UserError:  # it was opened for other protocols than the objective's
        return None
    return found if found and found.tested else None


def on_test(seen: Opened) -> str:
    """What the hollow marks are, and what luck the choice owes, in a line."""
    return f"{TEST}: {' '.join(notes(seen))}"


def draw_tested(ax: Axes, y: float, test: Row) -> None:
    """A curriculum on the test split, below what it has on validation, whose choice that was."""
    if test.low is not None and test.high is not None:
        ax.plot([100 * test.low, 100 * test.high], [y] * 2, color=INK, linewidth=0.8, alpha=0.75)
    if test.score is not None:
        look: dict[str, Any] = {**HOLLOW, "color": INK, "markersize": 4, "markeredgewidth": 0.9}
        ax.plot([100 * test.score], [y], TEST_MARK, gid=f"test {test.name}", **look)


def draw_measured(ax: Axes, lines: list[FigureLine], rows: list[Row], tested: Sequence[Tested] = ()) -> None:
    """Mean, interval and single seeds of every curriculum; a word where there is no score; what test says below."""
    limits(ax, [*rows, *(each.test for each in tested)])
    of = {each.validation.keys: each.test for each in tested}
    for none in [row.score for row in rows if row.curriculum == ROOT_CURRICULUM and row.score is not None]:
        ax.axvline(100 * none, color=GREY, linewidth=1, linestyle="--", zorder=1)
    for line in lines:
        row = line.row
        if row is None:
            continue
        if row.score is None:
            ax.plot([0.015], [line.y], "x", color=GREY, markersize=5, transform=ax.get_yaxis_transform())
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            beside(ax, row.status, 0.015, line.y, 8, color=GREY, fontsize=8, bbox=behind)
            continue
        colour, marker = mark(row.order, row.length)
        if row.low is not None and row.high is not None:
            ax.plot([100 * row.low, 100 * row.high], [line.y] * 2, color=colour, linewidth=1.3, alpha=0.75)
        if len(row.values) > 1:
            seeds = [100 * value for value in row.values]
            ax.plot(seeds, [line.y] * len(seeds), "|", color=colour, markersize=7, markeredgewidth=0.8)
        ax.plot([100 * row.score], [line.y], marker, color=colour, markersize=SIZES[marker], **FULL)
        if row.keys in of:
            draw_tested(ax, line.y + BELOW, of[row.keys])


def limits(ax: Axes, rows: list[Row]) -> None:
    """Room for all scores and their intervals."""
    scores = [value for row in rows for value in row.values] or [0.0, 1.0]
    # The axis holds every interval whole: one cut off by the frame would read as a shorter one.
    low = min([*scores, *(r.low for r in rows if r.low is not None)])
    high = max([*scores, *(r.high for r in rows if r.high is not None)])
    span = max(high - low, 0.01)
    ax.set_xlim(100 * (low - 0.05 * span), 100 * (high + 0.05 * span))


def mark(order: str, length: int) -> tuple[str, str]:
    """Colour and marker of an ordering mark; no pre-training is neither a task nor an order."""
    return ORDERS[order][:2] if length else (GREY, "o")


def draw_published(ax: Axes, lines: list[FigureLine], name: str) -> set[str]:
    """A paper's values of the same curricula, hollow, on their own axis. Returns their ordering marks."""
    scores = published(name)
    single = {curriculum: score for curriculum, score in scores.items() if len(Curriculum.parse(curriculum)) == 1}
    done: list[float] = []
    marks = set()
    for line in lines:
        if line.row is None or line.row.curriculum not in scores:
            continue
        order = ordering(line.row.tasks, single)
        if line.row.length:
            marks.add(order)
        colour, marker = mark(order, line.row.length)
        value = 100 * scores[line.row.curriculum]
        done.append(value)
        ax.plot([value], [line.y], marker, color=colour, markersize=SIZES[marker], **HOLLOW)
    for baseline, style in ((ROOT_CURRICULUM, "--"), (IMAGENET, ":")):
        if baseline in scores:
            done.append(100 * scores[baseline])
            ax.axvline(100 * scores[baseline], color=GREY, linewidth=1, linestyle=style, zorder=1)
    if done:
        span = max(max(done) - min(done), 5)
        ax.set_xlim(min(done) - 0.07 * span, max(done) + 0.07 * span)
    form = table(name)
    ax.set_title(f"published: {form.title}\n(other data, own axis)", fontsize=9.5)
    ax.set_xlabel(f"{form.quantity}, {form.data} (%)")
    return marks


def legend(figure: Figure, said: str, marks: set[str], high: float, paper: bool, tested: bool = False) -> None:
    """The marks that occur, and under them how the intervals were made."""
    from matplotlib.lines import Line2D

    more = LINE * max(0, said.count("\n") - 1)
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5.5, label=text)
        for order, (colour, marker, text) in ORDERS.items()
        if order in marks
    ]
    hollow: dict[str, Any] = {"markerfacecolor": "white", "linestyle": ""}
    if tested:
        handles.append(Line2D([], [], color=INK, marker=TEST_MARK, label=TEST, markersize=4, **hollow))
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label=ROOT_CURRICULUM))
    if paper:
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1, label=IMAGENET))
        handles.append(Line2D([], [], color=INK, marker="o", label="published", markersize=SIZES["o"], **hollow))
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, (0.38 + more) / high),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handletextpad=0.3,
        columnspacing=1.2,
    )
    figure.text(0.5, (0.24 + more / 2) / high, said, ha="center", va="center", fontsize=7.5, color="#555555")


def wrapped(text: str, wide: float) -> str:
    """Its lines, none wider than a figure of so many inches."""
    return "\n".join(textwrap.fill(line, int(LETTERS * wide)) for line in text.split("\n"))


def note(rows: list[Row]) -> str:
    """What the marks mean, and how the intervals of these rows were made."""
    seen = {row.order for row in rows}
    marks = "; ".join(text for mark, text in MARKS.items() if mark in seen) + "\n"
    said = [f"95 % interval: {kind_of_interval((row.spread for row in rows), rows[0].groups if rows else PATIENTS)}"]
    if any(len(row.seeds) > 1 for row in rows):
        said.append("ticks: seeds")
    caveats = rows[0].measure.caveats if rows else None
    if caveats:
        said.append(f"caution: {caveats}")
    return (marks if any(row.order for row in rows) else "") + "; ".join(said)
