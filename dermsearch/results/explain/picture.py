"""The picture of an explanation: effects and shares with intervals, neighbours, and what the search cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermsearch.curriculum import Curriculum
from dermsearch.results.board.leaderboard import points
from dermsearch.results.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    STYLE,
    VERMILION,
    beside,
    grid,
    line_panel,
    readable,
    save,
)
from dermsearch.results.explain.effects import Effect
from dermsearch.results.explain.explain import REVERSED, Explanation
from dermsearch.results.explain.regret import Step, progress
from dermsearch.results.explain.text import counted
from dermsearch.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 11.0  # inches
ROW, HEADING = 0.215, 0.3
LEFT, LEFT_SHARES, GAP, RIGHT = 1.75, 2.35, 0.35, 0.25  # the names' room, and between and beside the panels
TOP, TITLE, AXIS = 0.85, 0.35, 0.55
LOWER = 2.7  # height of the lower panels
NOTE = 0.6
INDENT = 0.75  # the lower right panel's own names are short
GROUPS = {  # part: heading, colour, marker
    "task": ("in the curriculum", INK, "^"),
    "last": ("as the last task", VERMILION, "s"),
    "first": ("as the first task, beyond what the last does", BLUE, "o"),
    "order": ("order of the tasks' own scores", GREEN, "o"),
}
ROOMY = 5  # tasks up to which a cell of the matrix has room for its interval
TALLEST = 4.5  # of the lower right panel
READ = (
    "In the curriculum: against {}. Last, first: against another of the same tasks there. "
    "Share: less what as many groups explain by chance.",
    "95 % intervals, each by itself. Filled: told from nothing with all comparisons allowed for (Holm). "
    "Hollow: cannot be told.",
)


def explain_figure(found: Explanation, path: str | Path) -> list[Path]:
    """Draw an explanation as PNG and SVG; a panel that has nothing to show is left out."""
    import matplotlib
    from matplotlib.figure import Figure

    groups = grouped([*found.tasks, *found.places])
    shares = {"": [e for e in found.shares if not e.against], "beyond": [e for e in found.shares if e.against]}
    shares = {name: effects for name, effects in shares.items() if effects}
    steps = progress(found.evidence.walks), progress(found.evidence.walks, shared=False)
    pairs = [e for e in found.pairs if e.against == REVERSED]
    upper, right = max(height(groups), 1.0), height(shares) if shares else -TITLE - AXIS
    tall = max(upper + (AXIS + TITLE + LOWER if pairs else 0), right + (AXIS + TITLE + LOWER if steps[0] else 0))
    high = TOP + tall + AXIS + NOTE
    panel = (WIDE - LEFT - LEFT_SHARES - GAP - RIGHT) / 2
    second = LEFT + panel + GAP + LEFT_SHARES
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, high))

        def axes(left: float, top: float, wide: float, up: float) -> Axes:
            return figure.add_axes((left / WIDE, 1 - (TOP + top + up) / high, wide / WIDE, up / high))

        if groups:
            label = "effect on the score (percent points)"
            forest(axes(LEFT, 0, panel, upper), groups, label, "What tasks and places are worth")
        if shares:
            label = "share of the variance between curricula (%)"
            forest(axes(second, 0, panel, right), shares, label, "What explains the differences", signed=False)
        if pairs:
            top = upper + AXIS + TITLE
            matrix(axes(LEFT, top, panel, tall - top), pairs, found.evidence.tasks)
        if steps[0]:
            top = right + AXIS + TITLE
            search(axes(second - INDENT, top, panel + INDENT, min(TALLEST, tall - top)), *steps)
        titles(figure, found, high)
        return save(figure, path)


def grouped(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    """The effects by their part, in the order of the panel."""
    found = {part: [e for e in effects if e.part == part] for part in GROUPS}
    return {part: inside for part, inside in found.items() if inside}


def height(groups: Mapping[str, Sequence[Effect]]) -> float:
    """Inches that the groups need, each under its heading."""
    return sum(HEADING + ROW * len(effects) for effects in groups.values()) + 0.1


def forest(ax: Axes, groups: Mapping[str, Sequence[Effect]], label: str, title: str, signed: bool = True) -> None:
    """Values with their intervals, one under the other; hollow what cannot be told."""
    line_panel(ax, height(groups))
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", x=0, pad=8)
    ax.set_xlabel(label)
    if signed:
        shown = [
            abs(v) for effects in groups.values() for e in effects for v in (e.value, e.low, e.high) if v is not None
        ]
        edge = 105 * max(shown, default=0.01)
        ax.set_xlim(-edge, edge)
    else:
        ax.set_xlim(-3, 103)
    y = 0.0
    for part, effects in groups.items():
        heading, colour, marker = GROUPS.get(part, (SHARES.get(part, part), BLUE, "o"))
        y += HEADING
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        beside(ax, heading, 0, y - 0.1, 2, color=INK, fontsize=8, fontweight="bold", bbox=behind, zorder=4)
        ax.axhline(y - 0.005, color=PALE, linewidth=0.8)
        for effect in effects:
            at = y + ROW / 2
            ink = INK if effect.told else "#555555"
            beside(ax, name_of(effect), 0, at, -8, ha="right", color=ink, fontsize=8.5, zorder=4)
            if effect.low is not None and effect.high is not None:
                ends = [100 * effect.low, 100 * effect.high]
                ax.plot(ends, [at, at], color=colour, linewidth=1.6 if effect.told else 1.1, solid_capstyle="butt")
            fill = colour if effect.told else "white"
            look = {"markersize": 5.5, "markerfacecolor": fill, "markeredgecolor": colour, "markeredgewidth": 1.2}
            ax.plot([100 * effect.value], [at], marker, zorder=3, clip_on=False, **look)  # type: ignore[arg-type]
            y += ROW


SHARES = {"": "by itself", "beyond": "beyond what something else explains"}


def name_of(effect: Effect) -> str:
    """The line's name: a task as a reader expects it, or a description and what it goes beyond."""
    if effect.part != "share":
        return readable(effect.name)
    return f"{effect.name}, beyond {effect.against}" if effect.against else effect.name


def matrix(ax: Axes, pairs: Sequence[Effect], tasks: Sequence[str]) -> None:
    """Row right before column, against the other way round; bold what is told."""
    from matplotlib.colors import LinearSegmentedColormap

    known: dict[tuple[str, str], tuple[float, float | None, float | None, bool]] = {}
    for e in pairs:
        a, b = Curriculum.parse(e.name).tasks
        turned = (None, None) if e.low is None or e.high is None else (-e.high, -e.low)
        known[a, b], known[b, a] = (e.value, e.low, e.high, e.told), (-e.value, *turned, e.told)
    edge = max(abs(value) for value, *_ in known.values()) or 0.01
    colours = LinearSegmentedColormap.from_list("pairs", [ORANGE, "white", BLUE])
    ax.set_xlim(0, len(tasks))
    ax.set_ylim(len(tasks), 0)
    small = 8.5 if len(tasks) < 5 else 7
    for i, first in enumerate(tasks):
        for j, second in enumerate(tasks):
            if (first, second) not in known:
                ax.fill_between([j, j + 1], i, i + 1, color="#F4F4F4", linewidth=0)
                continue
            value, low, high, told = known[first, second]
            # A value that cannot be told is drawn paler: its colour should not be read as a finding.
            shade = colours(0.5 + value / edge / 2 * (0.9 if told else 0.45))
            ax.fill_between([j, j + 1], i, i + 1, color=shade, linewidth=0)
            ends = "" if low is None or len(tasks) > ROOMY else f"\n[{points(low, '+')}, {points(high, '+')}]"
            weight = "bold" if told else "normal"
            ax.text(
                j + 0.5, i + 0.4, points(value, "+"), ha="center", va="center", fontsize=small + 0.5, fontweight=weight
            )
            ax.text(j + 0.5, i + 0.5, ends, ha="center", va="center", fontsize=small - 1.5, color="#444444")
    for k in range(1, len(tasks)):
        ax.axhline(k, color="white", linewidth=2)
        ax.axvline(k, color="white", linewidth=2)
    names = [readable(task) for task in tasks]
    ax.set_xticks([k + 0.5 for k in range(len(tasks))], names, fontsize=8.5, rotation=20 if len(tasks) > 4 else 0)
    ax.set_yticks([k + 0.5 for k in range(len(tasks))], names, fontsize=8.5)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel("percent points against the other way round")
    ax.set_title("The row's task right before the column's", loc="left", fontsize=10, fontweight="bold", pad=8)


def search(ax: Axes, shared: Sequence[Step], whole: Sequence[Step]) -> None:
    """How far behind the best the search was after so many stages, with shared beginnings and without."""
    best = max(step.best for step in shared)
    for steps, colour, style, text in (
        (whole, VERMILION, (0, (4, 2)), "every curriculum trained whole"),
        (shared, BLUE, "-", "shared beginnings trained once"),
    ):
        known = [s for s in steps if s.best > float("-inf")]
        behind = [100 * (best - s.best) for s in known]
        ax.step(
            [s.stages for s in known], behind, where="post", color=colour, linestyle=style, linewidth=1.8, label=text
        )
        if behind:
            ax.plot([known[-1].stages], [behind[-1]], "o", color=colour, markersize=5, clip_on=False, zorder=3)
            ax.annotate(
                f"{known[-1].cost} stage{'s' * (known[-1].cost != '1')}",
                (known[-1].stages, behind[-1]), (6, 6), textcoords="offset points",
                ha="left", fontsize=8, color=colour, zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
    ax.set_xlim(0, 1.18 * max(s.stages for s in whole))
    ax.set_ylim(bottom=0)
    grid(ax)
    ax.set_xlabel("stages trained")
    ax.set_ylabel("behind the best score (percent points)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    ax.set_title("What the search cost, proposal by proposal", loc="left", fontsize=10, fontweight="bold", pad=8)


def titles(figure: Figure, found: Explanation, high: float) -> None:
    """What was studied above, how to read it below."""
    evidence = found.evidence
    count = f"{counted(evidence)}, {many(len(evidence.seeds), 'seed')}"
    figure.text(0.02, 1 - 0.24 / high, evidence.title, va="center", fontsize=12, fontweight="bold")
    figure.text(0.02, 1 - 0.45 / high, f"{count}; {evidence.quantity}", va="center", fontsize=9, color=INK)
    lines = [READ[0].format(found.tasks[0].against if found.tasks else "others"), READ[1]]
    lines += [f"Caution: {evidence.caveats}"] if evidence.caveats else []
    for i, line in enumerate(lines):
        figure.text(0.02, (NOTE - 0.12 - 0.155 * i) / high, line, va="center", fontsize=7.5, color="#555555")
