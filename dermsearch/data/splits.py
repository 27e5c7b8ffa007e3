"""Splits that do not leak: whole patients go to train, validation or test, stratified by diagnosis, seeded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from dermsearch.data.case import SPLITS

SHARES = (0.7, 0.15, 0.15)


def split_by_group(
    groups: Sequence[str], strata: Sequence[int], seed: int, shares: Sequence[float] = SHARES
) -> list[str]:
    """The split of every case. Groups (patients) stay whole; strata (diagnoses) come close to `shares` in each.

    Groups are dealt one by one, the largest first, each to the split that lacks its cases most.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    kinds = sorted(set(strata))
    totals = np.array([sum(s == k for s in strata) for k in kinds], float)
    wanted = np.array(shares, float)[:, None] * totals[None, :]  # (split, stratum)
    dealt = np.zeros_like(wanted)
    order = np.random.default_rng(seed).permutation(sorted(members))
    result = [""] * len(groups)
    for group in sorted(order, key=lambda g: -len(members[g])):  # stable: ties keep their random order
        rows = members[group]
        has = np.array([sum(strata[r] == k for r in rows) for k in kinds], float)
        # How far each split's shares would be from what is wanted, in parts of the stratum, if it took the group.
        lack = ((wanted - dealt) / np.maximum(wanted, 1e-9)) @ has + (wanted - dealt).sum(1) / wanted.sum(1)
        chosen = int(lack.argmax())
        dealt[chosen] += has
        for r in rows:
            result[r] = SPLITS[chosen]
    return result
