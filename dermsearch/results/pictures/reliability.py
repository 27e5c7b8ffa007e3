"""Does a probability come true as often as it says? A curve for each of a few curricula."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dermsearch.results.board.clinical import BINS, Board, Clinical, bin_of
from dermsearch.results.drawing import PALE, SERIES, STYLE, chain, save


def reliability_figure(board: Board, path: str | Path, origin: str = "") -> list[Path]:
    """No pre-training, the best, and the best task alone; how many cases lie where is drawn below."""
    import matplotlib
    from matplotlib.figure import Figure

    told = board.told
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 5.6))
        upper, lower = figure.add_axes((0.13, 0.42, 0.83, 0.5)), figure.add_axes((0.13, 0.22, 0.83, 0.13))
        upper.plot([0, 100], [0, 100], color=PALE, linewidth=1.5, zorder=0)
        for i, ((colour, marker), each) in enumerate(zip(SERIES, shown(board), strict=False)):
            x, y, n = zip(*each.curve, strict=True)
            error = each.numbers["calibration"][0] or 0.0
            name = f"{chain(each.row.tasks, told[each.row.key], each.row.root)} (error {100 * error:.1f})"
            at = [100 * v for v in x]
            upper.plot(at, [100 * v for v in y], color=colour, marker=marker, markersize=5, label=name)
            middles = (bin_of(np.array(x)) + 0.5) * 100 / BINS
            lower.bar(middles + (i - 1) * 2.2, n, width=2, color=colour)
        upper.set_ylabel(f"cases with {board.cls} (%)")
        upper.set_title(f"{board.label} = {board.cls}, {board.judge}, validation", fontsize=9.5)
        lower.set_ylabel("cases")
        lower.set_xlabel(f"said probability of {board.cls} (%)")
        for ax in (upper, lower):
            ax.set_xlim(-3, 103)
        figure.legend(loc="lower center", bbox_to_anchor=(0.5, 0.02), frameon=False, fontsize=8)
        return save(figure, path, origin)


def shown(board: Board) -> list[Clinical]:
    """What is compared."""
    none = [each for each in board.rows if not each.row.length][:1]
    best = [each for each in board.rows if each.row.length][:1]
    alone = [each for each in board.rows if each.row.length == 1 and each not in best][:1]
    return [*none, *best, *alone]
