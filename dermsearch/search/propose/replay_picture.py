"""The picture of a replay: how far from the best of all each sampler was, after so many stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsearch.results.drawing import BLUE, GREY, PALE, STYLE, VERMILION, save
from dermsearch.search.propose.replay import Replayed, Table, quantile
from dermsearch.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 2  # panels beside each other
WIDE, TALL = 3.7, 2.3  # inches of a panel
LEFT, RIGHT, TOP, BOTTOM, GAP, TITLE = 0.65, 0.2, 0.7, 1.15, 0.3, 0.55
LOOKS: dict[bool, tuple[str, Any, float, str]] = {  # colour, line, how dense the band is, what the legend says
    True: (BLUE, "-", 0.25, "shared: a stage counts once"),
    False: (VERMILION, (0, (4, 2)), 0.12, "alone: every curriculum trained whole"),
}
NOTE = "Line: median of {}, to where half have found the best. Band: 10th to 90th percentile."
OTHERS = " Grey: the other samplers, shared."
Regret = list[tuple[int, float, float, float]]  # stages; 10th percentile, median and 90th, in points


def replay_figure(
    name: str, table: Table, runs: Mapping[tuple[str, bool], Sequence[Replayed]], path: str | Path
) -> list[Path]:
    """Draw regret over stages, a panel for each sampler; `runs` are its searches with sharing and without."""
    import matplotlib
    from matplotlib.figure import Figure

    lines = {which: regrets(table, found) for which, found in runs.items()}
    samplers = list(dict.fromkeys(sampler for sampler, _ in runs))
    down = math.ceil(len(samplers) / ACROSS)
    wide = LEFT + ACROSS * (WIDE + GAP) - GAP + RIGHT
    high = TOP + down * (TALL + TITLE) - TITLE + BOTTOM
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        for i, sampler in enumerate(samplers):
            row, column = divmod(i, ACROSS)
            panel = WIDE if len(samplers) > 1 else wide - LEFT - RIGHT
            corner = (LEFT + column * (WIDE + GAP)) / wide, 1 - (TOP + row * (TALL + TITLE) + TALL) / high
            ax = figure.add_axes((*corner, panel / wide, TALL / high))
            for other in samplers:
                if other != sampler:
                    stages, _, middle, _ = zip(*until_best(lines[other, True]), strict=True)
                    ax.step(stages, middle, where="post", color=GREY, linewidth=0.9, alpha=0.6, zorder=1)
            for sharing in LOOKS:
                draw(ax, lines[sampler, sharing], sharing)
            frame(ax, lines, sampler, last=i + ACROSS >= len(samplers), first=column == 0)
        figure.text(0.02, 1 - 0.22 / high, f"{name}: regret over stages", fontsize=11, fontweight="bold", va="center")
        legend(figure, high)
        note = NOTE.format(many(max(map(len, runs.values())), "search", "searches")) + OTHERS * (len(samplers) > 1)
        figure.text(0.02, 0.14 / high, note, va="center", fontsize=7.5, color="#555555")
        return save(figure, path)


def regrets(table: Table, runs: Sequence[Replayed]) -> Regret:
    """How far the best so far was from the best of all, from the stage on by which every search knows a score."""
    goal, found = max(table.values()), []
    for spent in range(max(run.costs[0] for run in runs), max(run.spent for run in runs) + 1):
        behind = sorted(100 * (goal - run.best(spent)) for run in runs)
        found.append((spent, quantile(behind, 0.1), quantile(behind, 0.5), quantile(behind, 0.9)))
    return found


def until_best(line: Regret, column: int = 2) -> Regret:
    """The beginning of a line, to where it reaches the best: what lies there needs none."""
    return line[: next((i + 1 for i, at in enumerate(line) if at[column] <= 0), len(line))]


def draw(ax: Axes, line: Regret, sharing: bool) -> None:
    """One sampler's median and band, and at the end of the median how many stages that took."""
    colour, style, dense, _ = LOOKS[sharing]
    stages, low, _, high = zip(*until_best(line, 3), strict=True)
    ax.fill_between(stages, low, high, step="post", color=colour, alpha=dense, linewidth=0)
    stages, _, middle, _ = zip(*until_best(line), strict=True)
    ax.step(stages, middle, where="post", color=colour, linestyle=style, linewidth=1.8, zorder=3)
    ax.plot([stages[-1]], [middle[-1]], "o" if sharing else "s", color=colour, markersize=5, clip_on=False, zorder=4)
    if middle[-1] <= 0:
        side, dx = ("right", -5) if sharing else ("left", 5)  # the shared one is never the later
        ax.annotate(
            str(stages[-1]), (stages[-1], 0), (dx, 4), ha=side,
            textcoords="offset points", fontsize=8, color=colour, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
        )  # fmt: skip


def frame(ax: Axes, lines: Mapping[tuple[str, bool], Regret], sampler: str, last: bool, first: bool) -> None:
    """The same axes in every panel, with words at the left and at the bottom."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_xlim(0, 1.04 * max(until_best(line, 3)[-1][0] for line in lines.values()))
    ax.set_ylim(0, 1.05 * max(max(at[3] for at in line) for line in lines.values()) or 1.0)
    ax.grid(color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(sampler, loc="left", fontsize=10, fontweight="bold", pad=5)
    if last:
        ax.set_xlabel("stages trained")
    if first:
        ax.set_ylabel("behind the best (points)")
    else:
        ax.tick_params(labelleft=False)


def legend(figure: Figure, high: float) -> None:
    """What solid and dashed are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=style, linewidth=1.8, label=text)
        for colour, style, _, text in LOOKS.values()
    ]
    figure.legend(
        handles=handles, ncols=2, frameon=False, fontsize=8.5, loc="center", bbox_to_anchor=(0.5, 0.42 / high)
    )
