"""Which curricula deserve the seeds behind the first: those that may still be the best.

With every seed trained, the best has the highest mean. A curriculum with one seed stays out of it for good if the
upper end of that score's 95 % interval is below the best's mean; until none but such are left, the others get all
seeds. So what has one seed is clearly worse, and the seed that a curriculum happened to begin with cannot crown it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dermsearch.search.tree.node import Node

Paths = list[list[Node]]  # of one proposal: a path of nodes per seed that it has so far


def mean(nodes: Sequence[Node]) -> float | None:
    """Over the seeds, and only when every seed has come through."""
    values = [n.value for n in nodes]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def highest(stages: Iterable[Sequence[Node]], before: float | None) -> float | None:
    """The best mean of the stages that have all seeds, and of those before them; None without any."""
    means = (mean(nodes) for nodes in stages if len(nodes) > 1)
    return max((m for m in (before, *means) if m is not None), default=None)


def contenders(stages: Iterable[Sequence[Node]], best: float | None) -> list[Node]:
    """Those with one seed that may still be the best; `best` is the highest mean over all seeds."""
    single = [(first, first.value) for first, *others in stages if not others and first.value is not None]
    if best is None:  # nothing has all seeds yet: begin with the best by its first one
        best = max((value for _, value in single), default=math.inf)
    return [first for first, _ in single if first.high >= best]
