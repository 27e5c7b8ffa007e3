"""Names beside the points of a picture: inside its axes, over no point and over no other name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from dermsearch.results.drawing import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

LETTERS = 7
BEHIND = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}  # a name stands over intervals
RING, APART = 7.0, 1.5  # points: around a mark, where a name would be read as its own, and what is left between names
NEAR, FAR = 4.0, (10.0, 18.0, 28.0, 40.0)  # from a point to its name; where that is far a line leads to it
SIDES = [(x, y) for x, y in product((1, -1, 0), (1, -1, 0)) if x or y]  # right before left, above before below
ACROSS, UP = {1: "left", -1: "right", 0: "center"}, {1: "bottom", -1: "top", 0: "center"}  # a name's end at its point


def name_points(ax: Axes, points: Sequence[tuple[float, float]], names: Mapping[int, str]) -> None:
    """Write names by the places of their points; the axes have their limits and their place in the figure by now."""
    from matplotlib.transforms import Bbox

    unit = ax.figure.dpi / 72  # pixels of a point
    middles = ax.transData.transform(points)
    rings = [Bbox([(x, y), (x, y)]).padded(RING * unit) for x, y in middles]
    taken = [text.get_window_extent().padded(APART * unit) for text in ax.texts]
    for i, name in names.items():
        text = ax.annotate(name, points[i], fontsize=LETTERS)
        size = text.get_window_extent().size
        text.remove()
        spots = [(far, side) for far in (NEAR, *FAR) for side in SIDES]
        boxes = [beside(middles[i], size, far * unit, side) for far, side in spots]
        full = [*taken, *rings[:i], *rings[i + 1 :]]
        over = [in_the_way(box, full, ax.bbox) for box in boxes]
        best = over.index(min(over))
        far, side = spots[best]
        line: dict[str, Any] = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            name, points[i], (far * side[0], far * side[1]), textcoords="offset points", fontsize=LETTERS, bbox=BEHIND,
            ha=ACROSS[side[0]], va=UP[side[1]], arrowprops=line if far in FAR else None,
        )  # fmt: skip
        taken.append(boxes[best].padded(APART * unit))


def beside(middle: Sequence[float], size: Sequence[float], far: float, side: Sequence[int]) -> Bbox:
    """Where a name of that size is, so far from a point on one of its sides."""
    from matplotlib.transforms import Bbox

    low = [m + s * far - wide * (1 - s) / 2 for m, wide, s in zip(middle, size, side, strict=True)]
    return Bbox.from_bounds(*low, *size)


def in_the_way(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """How much of a name, in pixels, lies over something or outside."""
    from matplotlib.transforms import Bbox

    over = [found for other in taken if (found := Bbox.intersection(box, other)) is not None]
    inside = Bbox.intersection(box, frame)
    area = box.width * box.height
    return sum(each.width * each.height for each in over) + area - (inside.width * inside.height if inside else 0.0)
