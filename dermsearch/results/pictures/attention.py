"""Accuracy against attention: a point for each curriculum, those that none beats, and how the two go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.board.row import Row
from dermsearch.results.drawing import BLUE, GREY, INK, STYLE, VERMILION, chain, grid, quantity, save
from dermsearch.results.pictures.names import name_points
from dermsearch.results.tables.lineages import Key, differences
from dermsearch.results.tables.measure import spelt
from dermsearch.results.tables.schema import Results
from dermsearch.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = {"ail": "attention inside the mask (%)", "occlusion": "what hiding costs, inside the mask (%)"}
DRAWS, FEWEST = 2000, 4
SIGNS = ((VERMILION, "o", "no other is better in both"), (BLUE, "o", "another is"), (INK, "s", "no pre-training"))
FEW = 8  # curricula that are all named; of more those that no other beats, no pre-training and the best task alone
Pairs = dict[Key, tuple[Row, Row]]  # of each curriculum its row by the objective, and by a share


@dataclass(frozen=True)
class Related:
    """Pearson's correlation of two scores over curricula."""

    value: float | None  # None where fewer than four curricula have both, or all are alike
    low: float | None  # 95 %, by drawing curricula anew
    high: float | None
    curricula: int

    def __str__(self) -> str:
        if self.value is None:
            return f"{many(self.curricula, 'curriculum', 'curricula')}: no correlation"
        return f"r = {self.value:.2f} [{self.low:.2f}, {self.high:.2f}] over {self.curricula} curricula"


def attention_figure(results: Results, path: str | Path) -> list[Path]:
    """Draw it, as PNG and SVG; nothing where attention was not judged, or is all that was."""
    panels = pairs(results)
    if not panels:
        return []
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(panels) + 0.4, 4.3), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        measure = next(iter(next(iter(panels.values())).values()))[0].measure
        area = even(results, measure.label)
        for ax, (metric, both) in zip(axes, panels.items(), strict=True):
            draw(ax, both, area)
            ax.set_xlabel(SHARES[metric])
        axes[0].set_ylabel(quantity(measure))
        signs = [Line2D([], [], color=c, marker=m, markersize=4, linewidth=0, label=words) for c, m, words in SIGNS]
        figure.legend(handles=signs, loc="outside lower center", ncols=len(signs), fontsize=7)
        figure.draw_without_rendering()  # it lays out the axes, by which names find their places
        for ax, both in zip(axes, panels.values(), strict=True):
            ax.autoscale(False)
            name_points(ax, places(both), named(both))
        return save(figure, path, results.origin)


def pairs(results: Results) -> dict[str, Pairs]:
    """By share, each curriculum's row by the study's objective and by that share."""
    judges, board = judges_of(results), leaderboard(results)
    if not judges or not board or (board[0].measure.protocol, board[0].measure.data) in judges:
        return {}
    found: dict[str, Pairs] = {}
    for metric in SHARES:
        shares = {row.key: row for row in leaderboard(results, spelt(*judges[0]), metric, board[0].measure.label)}
        both = {row.key: (row, shares[row.key]) for row in board if row.score is not None and row.key in shares}
        both = {key: pair for key, pair in both.items() if pair[1].score is not None}
        if both:
            found[metric] = both
    return found


def judges_of(results: Results) -> list[tuple[str, str]]:
    """The lines of downstream that judged attention: protocol and data. Of several the first is drawn."""
    rows = results.scores.select(["protocol", "data", "metric"]).to_pylist()
    return sorted({(r["protocol"], r["data"]) for r in rows if r["metric"] == "ail"})


def even(results: Results, label: str) -> float | None:
    """What an even map scores: the mask's mean area."""
    rows = leaderboard(results, spelt(*judges_of(results)[0]), "area", label)
    areas = [row.score for row in rows if row.score is not None]
    return float(np.mean(areas)) if areas else None


def places(both: Pairs) -> list[tuple[float, float]]:
    """Where the points stand: the share, and the objective's score, in percent."""
    return [(100 * (share.score or 0), 100 * (score.score or 0)) for score, share in both.values()]


def named(both: Pairs) -> dict[int, str]:
    """Of the points that have a name, by their places in the table, what it is."""
    told, keys, points = differences(both), list(both), places(both)
    singles = [i for i, key in enumerate(keys) if len(key.curriculum) == 1]
    alone = max(singles, key=lambda i: points[i][1], default=None)
    front = unbeaten(points)
    of = [i for i, key in enumerate(keys) if len(keys) <= FEW or i in front or i == alone or not len(key.curriculum)]
    return {i: chain(keys[i].curriculum, told[keys[i]], keys[i].root) for i in of}


def draw(ax: Axes, both: Pairs, area: float | None) -> None:
    """Points with both intervals; the front is joined."""
    points = places(both)
    front = unbeaten(points)
    for i, (key, (score, share)) in enumerate(both.items()):
        colour = VERMILION if i in front else BLUE if len(key.curriculum) else INK
        sign = "o" if len(key.curriculum) else "s"
        x, y = points[i]
        ax.errorbar(x, y, bars(score), bars(share), color=colour, fmt=sign, markersize=4, elinewidth=0.4)
    ax.plot(*zip(*(points[i] for i in front), strict=True), color=VERMILION, linewidth=0.9, zorder=0)
    if area is not None:
        ax.axvline(100 * area, color=GREY, linewidth=0.8, linestyle=":")
        ax.text(100 * area, ax.get_ylim()[0], " an even map", rotation=90, va="bottom", fontsize=6.5, color=GREY)
    grid(ax)
    ax.set_title(
        str(related([point for point, key in zip(points, both, strict=True) if len(key.curriculum)])), fontsize=8.5
    )


def bars(row: Row) -> list[list[float]] | None:
    """How far a row's interval reaches below and above it, in percent."""
    if row.score is None or row.low is None or row.high is None:
        return None
    return [[max(0.0, 100 * (row.score - row.low))], [max(0.0, 100 * (row.high - row.score))]]


def unbeaten(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of those that no other is better than in one and as good in the other, by rising x."""

    def beaten(a: float, b: float) -> bool:
        return any(c >= a and d >= b and (c, d) != (a, b) for c, d in points)

    return sorted((i for i, (a, b) in enumerate(points) if not beaten(a, b)), key=lambda i: points[i])


def related(points: Sequence[tuple[float, float]]) -> Related:
    """How two scores go together over curricula, by Pearson."""
    values = np.array(points, float).reshape(-1, 2).T
    if values.shape[1] < FEWEST or (np.ptp(values, axis=1) == 0).any():
        return Related(None, None, None, values.shape[1])
    rng, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        sample = values[:, rng.integers(0, values.shape[1], values.shape[1])]
        if (np.ptp(sample, axis=1) > 0).all():
            drawn.append(np.corrcoef(sample)[0, 1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Related(float(np.corrcoef(values)[0, 1]), float(low), float(high), values.shape[1])
