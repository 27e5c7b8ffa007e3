"""A few labelled cases: so many of every class of every label, or such a share of it, of as many patients as can be.

Every class asks for its first case, then for its second, and so on; a share is asked for as far as the class has come.
The rarest class asks first, and a class that already has what it asks for through cases of others gets none. So no
case is there that no class needed, a larger view of a draw holds the smaller, and a common class is over its number
only as far as the rare ones need its cases. Of one label the view has exactly so many cases of each class.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from heapq import heappop, heappush

import numpy as np

from dermsearch.errors import UserError
from dermsearch.numbers import uniforms


def low_label(
    part: str, labels: Mapping[str, np.ndarray], groups: np.ndarray, draw: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Rows of a named view: "10", ten of every class of every label, or "10%", a tenth of it; fewer where it has fewer.

    A label is -1 where it is not known. `draw` is a seed and the number of a draw with it. Of a class those patients
    (groups) come first of whom it shows fewest cases, and then those of whom the whole view does.
    """
    share, amount = part.endswith("%"), _amount(part)
    chance = uniforms(*draw, np.arange(len(groups)), "few labels", 1)[:, 0]
    order = np.argsort(chance, kind="stable")
    members = [order[known[order] == kind] for known in labels.values() for kind in np.unique(known[known >= 0])]
    members.sort(key=len)  # stable, so that rare ones come first and ties keep the order of the labels
    asked = []  # (when, class, how many it then should have)
    for kind, rows in enumerate(members):
        most = math.ceil(len(rows) * amount / 100) if share else min(len(rows), int(amount))
        asked += [((count - 1) / len(rows) if share else count, kind, count) for count in range(1, most + 1)]
    group, place = groups.tolist(), np.argsort(order).tolist()
    classes: list[list[int]] = [[] for _ in group]  # of each case
    cases: list[dict[int, list[int]]] = [defaultdict(list) for _ in members]  # of a class by group, the first one last
    for kind, rows in enumerate(members):
        for row in rows[::-1].tolist():
            classes[row].append(kind)
            cases[kind][group[row]].append(row)
    # The groups of a class: how many of it the class shows and the view, and the place of its next case in the draw.
    queues = [sorted((0, 0, place[rows[-1]], who) for who, rows in by_group.items()) for by_group in cases]
    taken: set[int] = set()
    has = [0] * len(members)
    in_class: list[dict[int, int]] = [defaultdict(int) for _ in members]
    in_view: dict[int, int] = defaultdict(int)
    for _, kind, count in sorted(asked):
        queue, shown = queues[kind], in_class[kind]
        while has[kind] < count:
            *_, who = turn = heappop(queue)
            rows = cases[kind][who]
            while rows and rows[-1] in taken:  # for another class
                rows.pop()
            if not rows:
                continue
            now = (shown[who], in_view[who], place[rows[-1]], who)
            if now != turn:  # more of the group is shown than when it queued
                heappush(queue, now)
                continue
            taken.add(rows[-1])
            in_view[who] += 1
            for each in classes[rows[-1]]:
                has[each] += 1
                in_class[each][who] += 1
            if len(rows) > 1:
                heappush(queue, turn)
    return np.array(sorted(taken), int)


def _amount(part: str) -> float:
    try:
        amount = float(part.removesuffix("%"))
    except ValueError:
        amount = 0.0
    if not (0 < amount <= 100 if part.endswith("%") else amount >= 1 and amount == int(amount)):
        raise UserError(f"'train:{part}' must be train:N, N cases of every class, or train:N%, with 0 < N <= 100")
    return amount
