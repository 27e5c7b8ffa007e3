"""Which curricula deserve the seeds behind the first: those that may still be the best.

With every seed trained, the best has the highest mean. A curriculum with one seed stays out of it for good if the
upper end of that score's 95 % interval is below the best's mean; until none but such are left, the others get all
seeds. So what has one seed is clearly worse, and the seed that a curriculum happened to begin with cannot crown it.
"""

from __future__ import annotations

from collections.abc import Sequence

from dermsearch.search.tree import DONE, Node

Paths = list[list[Node]]  # of one proposal: a path of nodes per seed that it has so far


def mean(nodes: Sequence[Node]) -> float | None:
    """Over the seeds, and only when every seed has come through."""
    values = [n.value for n in nodes]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def contenders(proposals: Sequence[Paths], best: float | None) -> list[Paths]:
    """Those with one seed that may still be the best; `best` is the highest mean over all seeds before this round."""
    single = [paths for paths in proposals if len(paths) == 1 and paths[0][-1].status == DONE]
    means = [mean([path[-1] for path in paths]) for paths in proposals if len(paths) > 1]
    known = [m for m in (best, *means) if m is not None]
    if not known:  # nothing has all seeds yet: begin with the best by its first one
        known = [n.value for n in (paths[0][-1] for paths in single) if n.value is not None]
    return [paths for paths in single if paths[0][-1].value is not None and paths[0][-1].high >= max(known)]
