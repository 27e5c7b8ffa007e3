"""The picture of a stage tree: what was trained once although many curricula begin with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import ROOT_CURRICULUM, Curriculum
from dermsearch.results.board.leaderboard import points
from dermsearch.results.drawing import GREY, INK, STAMP, STYLE, chain, judge_name, quantity, save
from dermsearch.results.tables.lineages import ROOT, Key, Lineage, differences, lineages, seed_values
from dermsearch.results.tables.measure import choose, read_scores
from dermsearch.results.tables.schema import Results
from dermsearch.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, BOX, GAP = 0.27, 0.2, 0.45  # inches: from line to line, a box's height, between two columns of boxes
LETTER, PAD = 0.068, 0.2  # inches a letter of a box takes, and what is left around its text
TOP, SIDE = 0.75, 0.25
BOTTOM, LEGEND_ROW = 0.75, 0.28  # the colour bar's room, and the legend's under it
NARROWEST = 6.2  # the legend's width


def tree_figure(results: Results, path: str | Path) -> list[Path]:
    """The stage tree from its root at the left, every stage with its score (the mean over its seeds)."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    lines = lineages(results)
    measure = choose(results)
    scores, baselines = read_scores(results, measure)
    values = {key: fmean(v.values()) for key, line in lines.items() if (v := seed_values(line, scores))}
    roots = sorted({key.beginning for key in lines} or {ROOT}, key=lambda key: key.root)
    for root in roots:
        if seeds := baselines.get((ROOT_CURRICULUM, root.root)):
            values[root] = fmean(score.value for score in seeds.values())
    words = box_words(roots, lines, values)
    heights, count = place(roots, lines)
    columns = column_edges(lines, words)
    wide = max(columns[max(columns)][1] + 2 * SIDE, NARROWEST)
    tall = count * ROW
    kinds = legend_kinds(lines)
    bottom = BOTTOM + STAMP + (LEGEND_ROW if kinds else 0)
    high = TOP + tall + bottom
    shown = [100 * value for value in values.values()] or [0.0, 100.0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        ax = figure.add_axes((0, bottom / high, 1, tall / high))
        spare = (wide - columns[max(columns)][1]) / 2
        ax.set_xlim(-spare, wide - spare)
        ax.set_ylim(tall, 0)
        ax.axis("off")
        low, span = min(shown), max(max(shown) - min(shown), 1)
        colours = ScalarMappable(Normalize(low, low + span), "cividis")
        draw_edges(ax, lines, heights, columns)
        for key in [*roots, *lines]:
            colour = colours.cmap((100 * values[key] - low) / span) if key in values else None
            draw_box(ax, columns[depth(key)], heights[key], words[key], lines.get(key), colour)
        headline, detail = titles(results, lines)
        figure.text(0.5, 1 - 0.24 / high, headline, ha="center", va="center", fontsize=11, fontweight="bold")
        figure.text(0.5, 1 - 0.48 / high, detail, ha="center", va="center", fontsize=8.5, color=INK)
        bar = figure.add_axes(((wide / 2 - 1.6) / wide, (bottom - 0.3) / high, 3.2 / wide, 0.12 / high))
        figure.colorbar(colours, cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=8)
        bar.set_xlabel(f"{quantity(measure)}, {judge_name(measure)}", fontsize=8.5, labelpad=2)
        legend(figure, kinds, high)
        return save(figure, path, results.origin)


def depth(key: Key) -> int:
    return len(key.curriculum)


def box_words(roots: Sequence[Key], lines: Mapping[Key, Lineage], values: Mapping[Key, float]) -> dict[Key, str]:
    """What stands in the boxes: the last task, the settings where they are searched, the score."""
    words = {root: f"{root.root or ROOT_CURRICULUM}  {points(values.get(root))}".strip() for root in roots}
    told = differences(lines)
    for key, line in lines.items():
        # Settings of earlier tasks stand in their own boxes.
        task = chain(Curriculum((line.curriculum.last,)), told[key])
        words[key] = f"{task}  {points(values.get(key))}".strip()
    return words


def place(roots: Sequence[Key], lines: Mapping[Key, Lineage]) -> tuple[dict[Key, float], int]:
    """The height of every node in inches, parents midway between their children; and the number of leaves."""
    children: dict[Key, list[Key]] = {}
    for key, line in lines.items():
        children.setdefault(line.parent, []).append(key)
    heights: dict[Key, float] = {}
    leaves = 0

    def visit(key: Key) -> None:
        nonlocal leaves
        below = sorted(children.get(key, []), key=lambda child: (child.curriculum.tasks, child.settings))
        for child in below:
            visit(child)
        if below:
            heights[key] = (heights[below[0]] + heights[below[-1]]) / 2
        else:
            heights[key] = (leaves + 0.5) * ROW
            leaves += 1

    for root in roots:
        visit(root)
    return heights, leaves


def column_edges(lines: Mapping[Key, Lineage], words: Mapping[Key, str]) -> dict[int, tuple[float, float]]:
    """Left and right end in inches of the boxes of each depth: a column is as wide as its longest text."""
    edges: dict[int, tuple[float, float]] = {}
    left = 0.0
    for level in sorted({depth(key) for key in words}):
        inside = [key for key in words if depth(key) == level]
        # A cross and a box without a score share the place the score would take.
        room = [len(words[key]) + (3 if key in lines and lines[key].status == "failed" else 0) for key in inside]
        right = left + max(room) * LETTER + PAD
        edges[level] = (left, right)
        left = right + GAP
    return edges


def draw_edges(
    ax: Axes,
    lines: Mapping[Key, Lineage],
    heights: Mapping[Key, float],
    columns: Mapping[int, tuple[float, float]],
) -> None:
    for key, line in lines.items():
        parent = line.parent
        start, end = columns[depth(parent)][1], columns[depth(key)][0]
        bend = end - GAP / 2
        style = ":" if line.status == "dropped" else "-"
        steps = [start, bend, bend, end], [heights[parent], heights[parent], heights[key], heights[key]]
        ax.plot(*steps, color=GREY, linewidth=0.9, linestyle=style, zorder=1, solid_joinstyle="round")


def draw_box(ax: Axes, column: tuple[float, float], y: float, text: str, line: Lineage | None, colour: Any) -> None:
    """One node: filled with its score's colour, or in the style of what happened to it."""
    from matplotlib.patches import FancyBboxPatch

    look = box_style(line, colour)
    left, right = column
    shape = FancyBboxPatch(
        (left + 0.04, y - BOX / 2 + 0.04),
        right - left - 0.08,
        BOX - 0.08,
        boxstyle="round,pad=0.04",
        zorder=2,
        **look,
    )
    ax.add_patch(shape)
    ink = "#555555" if colour is None else "white" if luminance(colour) < 0.18 else "black"
    ax.text((left + right) / 2, y, text, ha="center", va="center", fontsize=8, color=ink, zorder=3)
    if line is not None and line.status == "failed":
        ax.plot([right - 0.12], [y], "x", color=INK, markersize=5.5, markeredgewidth=1.5, zorder=4)


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance (WCAG): below 0.18 white letters have more contrast than black ones."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def box_style(line: Lineage | None, colour: Any) -> dict[str, Any]:
    """Outline and filling of a node's box; the legend uses the same."""
    status = line.status if line is not None else "done"
    if status == "failed":
        return {"facecolor": "#D0D0D0", "edgecolor": GREY, "linewidth": 0.8}
    if status == "pruned":
        return {"facecolor": "white", "edgecolor": INK, "linewidth": 1.0}
    if status == "dropped":
        return {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.8, "linestyle": ":"}
    outline = {"linestyle": (0, (3, 1.5)), "linewidth": 1.5} if line is not None and line.reused else {}
    return {
        "facecolor": colour if colour is not None else "#F2F2F2",
        "edgecolor": INK,
        "linewidth": 0.6,
    } | outline


def titles(results: Results, lines: Mapping[Key, Lineage]) -> tuple[str, str]:
    """What the tree saves, and what became of its stages."""
    trials = results.trials.select(["root", "curriculum", "settings"]).to_pylist()
    seen = {tuple(trial.values()): len(Curriculum.parse(trial["curriculum"])) for trial in trials}
    alone = sum(seen.values() if seen else (len(key.curriculum) for key in lines))
    headline = many(len(lines), "stage") + (f" instead of {alone}" if alone > len(lines) else "")
    seeds = [len(line.stages) for line in lines.values() if line.status == "done"] or [1]
    counts = Counter(line.status for line in lines.values())
    each = f"{max(seeds)} seeds each" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)} seeds"
    said = [each if max(seeds) > 1 else "one seed"]
    said.append(f"{counts['done']} done")
    reused = sum(line.reused for line in lines.values())
    said += [f"{reused} of them reused"] if reused else []
    said += [f"{counts[state]} {state}" for state in STATES if counts[state]]
    return headline, ", ".join(said)


STATES = ("failed", "pruned", "dropped")
LEGEND = {"failed": "failed (×)", "dropped": "dropped below them"}


def legend_kinds(lines: Mapping[Key, Lineage]) -> dict[str, Lineage]:
    """The kinds of boxes that occur beside the plain coloured ones, each with an example."""
    kinds = {line.status: line for line in lines.values() if line.status in STATES}
    if reused := [line for line in lines.values() if line.reused and line.status == "done"]:
        kinds["reused"] = reused[0]
    return kinds


def legend(figure: Figure, kinds: Mapping[str, Lineage], high: float) -> None:
    """The kinds of boxes, in a row at the bottom."""
    from matplotlib.patches import Patch

    handles = [Patch(label=LEGEND.get(k, k), **box_style(line, None)) for k, line in kinds.items()]
    if handles:
        look: dict[str, Any] = {"ncols": len(handles), "frameon": False, "fontsize": 8, "loc": "lower center"}
        figure.legend(handles=handles, bbox_to_anchor=(0.5, (0.04 + STAMP) / high), **look)
