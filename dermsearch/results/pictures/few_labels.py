"""Scores against the number of labelled cases, a panel for each judge that learnt from several numbers of them.

Below each what pre-training adds to it: on the same patients, seeds and draws, with an interval of its own.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermsearch.errors import UserError
from dermsearch.results.board.about import PATIENTS
from dermsearch.results.board.leaderboard import kind_of_interval, leaderboard
from dermsearch.results.board.row import Row
from dermsearch.results.drawing import GREY, INK, SERIES, STYLE, chain, grid, readable, save
from dermsearch.results.tables.lineages import Key, differences
from dermsearch.results.tables.measure import spelt
from dermsearch.results.tables.schema import DEFAULTS, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALL = DEFAULTS["labelled"]
LINES = 6  # that a panel can hold apart
PANEL, ALONE, HIGH, LOW, LEFT, BELOW, BETWEEN, NAMED = 3.1, 5.4, 2.9, 1.7, 0.85, 1.35, 0.25, 0.42  # inches
Curve = dict[str, Row]  # by the number of labels
Point = tuple[float, float | None, float | None]  # a value, and the ends of its interval


def few_labels_figure(results: Results, path: str | Path) -> list[Path]:
    """Draw it, as PNG and SVG; nothing where no judge learnt from several numbers of labels."""
    panels = {judge: curves(results, judge, numbers) for judge, numbers in judges(results).items()}
    panels = {judge: found for judge, found in panels.items() if found}
    if not panels:
        return []
    import matplotlib
    from matplotlib.figure import Figure

    shown = chosen(panels)
    panel = PANEL if len(panels) > 1 else ALONE
    one = next(iter(next(iter(next(iter(panels.values())).values())).values()))
    rows = [(scored, HIGH, f"{readable(one.measure.metric)} (%)")]
    if any(gained(row) for found in panels.values() for curve in found.values() for row in curve.values()):
        rows.append((gained, LOW, "above no pre-training\n(points)"))
    wide, high = (
        LEFT + len(panels) * (panel + BETWEEN),
        BELOW + 0.4 - BETWEEN + sum(tall + BETWEEN for _, tall, _ in rows),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        foot = high - 0.4
        for of, tall, said in rows:
            foot -= tall
            axes: list[Axes] = []
            for i, (judge, found) in enumerate(panels.items()):
                place = ((LEFT + i * (panel + BETWEEN)) / wide, foot / high, panel / wide, tall / high)
                ax = figure.add_axes(place, sharey=axes[0] if axes else None)
                axes.append(ax)
                draw(ax, found, shown, [*judges(results)[judge]], of)
                ax.tick_params(labelleft=not i, labelbottom=of is rows[-1][0])
                if of is scored:
                    ax.set_title(judge, fontsize=9.5)
                if of is rows[-1][0]:
                    logarithmic = ", log scale" * spread(judges(results)[judge])
                    ax.set_xlabel(f"labelled cases of every class{logarithmic}")
            axes[0].set_ylabel(said)
            axes[0].yaxis.set_label_coords(-NAMED / panel, 0.5)
            foot -= BETWEEN
        legend(figure, panels, shown, high)
        return save(figure, path, results.origin)


def judges(results: Results) -> dict[str, list[str]]:
    """The judges that learnt from several numbers of labels, as linear@ham, and these numbers, rising."""
    found: dict[str, set[str]] = {}
    for row in results.scores.group_by(["protocol", "data", "labelled"]).aggregate([]).to_pylist():
        found.setdefault(spelt(row["protocol"], row["data"]), set()).add(row["labelled"])
    return {judge: sorted(numbers, key=amount) for judge, numbers in sorted(found.items()) if len(numbers) > 1}


def amount(labelled: str) -> tuple[int, float]:
    """What numbers of labels are sorted by: of every class, then shares, then all."""
    return (2, 0) if labelled == ALL else (int(labelled.endswith("%")), float(labelled.rstrip("%")))


def curves(results: Results, judge: str, numbers: list[str]) -> dict[Key, Curve]:
    """By curriculum its scores from each number of labels, by the study's metric and label if the judge has them."""
    objective = results.study.get("objective") or {}
    found: dict[Key, Curve] = {}
    for number in numbers:
        try:
            rows = leaderboard(results, f"{judge}:{number}", objective.get("metric"), objective.get("label"))
        except UserError:
            return {}
        for row in rows:
            if row.score is not None:
                found.setdefault(row.key, {})[number] = row
    return found


def chosen(panels: dict[str, dict[Key, Curve]]) -> list[Key]:
    """No pre-training, the best from few labels, the tasks alone: as many as can be told apart."""
    found = next(iter(panels.values()))
    few = {key: curve[min(curve, key=amount)].score or 0 for key, curve in found.items()}
    ranked = sorted(few, key=lambda key: -few[key])
    roots = [key for key in ranked if not len(key.curriculum)]
    best = [key for key in ranked if len(key.curriculum)][:1]
    alone = [key for key in ranked if len(key.curriculum) == 1]
    return [*dict.fromkeys([*roots[:1], *best, *alone, *ranked])][:LINES]


def scored(row: Row) -> Point | None:
    """Its score, with its interval."""
    return None if row.score is None else (row.score, row.low, row.high)


def gained(row: Row) -> Point | None:
    """What it is above no pre-training, with the interval of that."""
    if row.to_none is None or not row.length:
        return None
    value, half = row.to_none.value, row.to_none.half
    return (value, None, None) if half is None else (value, value - half, value + half)


def draw(
    ax: Axes, found: dict[Key, Curve], shown: list[Key], numbers: list[str], of: Callable[[Row], Point | None]
) -> None:
    """A line for each curriculum with the band of its interval."""
    places = dict(zip(numbers, steps(numbers), strict=True))
    for (colour, marker), key in zip(SERIES, shown, strict=False):
        own = found.get(key, {})
        points = [(x, point) for number, x in places.items() if number in own and (point := of(own[number]))]
        if not points:
            continue
        bounds = [(x, 100 * low, 100 * high) for x, (_, low, high) in points if low is not None and high is not None]
        if bounds:
            at, low, high = zip(*bounds, strict=True)
            ax.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
        xs, ys = [x for x, _ in points], [100 * value for _, (value, _, _) in points]
        ax.plot(xs, ys, color=colour, marker=marker, markersize=4.5, linewidth=1.3, markeredgecolor="white")
    if of is gained:
        ax.axhline(0, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    ax.set_xticks([*places.values()], numbers)
    first, last = min(places.values()), max(places.values())
    ax.set_xlim(first - 0.07 * (last - first), last + 0.07 * (last - first))
    grid(ax)


def steps(numbers: Sequence[str]) -> list[float]:
    """Where rising numbers of labels stand: by their logarithm where they span a tenfold or more, else at even steps.

    Shares of a class, and all, of which each data set has other numbers, follow at steps of their own.
    """
    counts = [int(number) for number in numbers if number.isdigit()]
    if not spread(numbers):
        return [float(place) for place in range(len(numbers))]
    found = [math.log10(count) for count in counts]
    step = (found[-1] - found[0]) / (len(found) - 1)
    return found + [found[-1] + step * (place + 1) for place in range(len(numbers) - len(counts))]


def spread(numbers: Sequence[str]) -> bool:
    """Do these span a tenfold?"""
    counts = [int(number) for number in numbers if number.isdigit()]
    return len(counts) > 1 and counts[-1] >= 10 * counts[0]


def legend(figure: Figure, panels: dict[str, dict[Key, Curve]], shown: list[Key], high: float) -> None:
    """Whose line is whose, and what the bands hold."""
    from matplotlib.lines import Line2D

    told = differences(shown)
    names = [chain(key.curriculum, told[key], key.root) for key in shown]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.3, label=name)
        for (colour, marker), name in zip(SERIES, names, strict=False)
    ]
    place = (0.5, 0.36 / high)
    columns = min(3, len(handles))
    figure.legend(handles=handles, ncols=columns, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=place)
    rows = [row for found in panels.values() for curve in found.values() for row in curve.values()]
    groups = rows[0].groups if rows else PATIENTS
    said = f"band: 95 % interval, {kind_of_interval((row.spread for row in rows), groups)}"
    said = textwrap.fill(said, int(figure.get_figwidth() * 18))
    figure.text(0.5, 0.22 / high, said, ha="center", va="center", fontsize=7, color=INK)
