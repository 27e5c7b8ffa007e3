"""Splits that do not leak: whole groups go to train, validation or test, stratified by diagnosis, seeded.

A group is a patient where patients are known, else a lesion, else the case; cases that share either are one group.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dermsearch.data.case import SPLITS
from dermsearch.errors import UserError

SHARES = (0.7, 0.15, 0.15)
By = Literal["published", "patient", "lesion", "image"]


@dataclass(frozen=True)
class Split:
    """How cases are dealt: as published where they are, else by group, in these shares of train, val and test."""

    # None: published unless shares are given, else by patient, else by lesion, as the release knows.
    by: By | None = None
    shares: tuple[float, float, float] | None = None  # None: SHARES
    seed: int = 0


def parse_shares(text: str) -> tuple[float, float, float]:
    """train=0.7,val=0.15,test=0.15 -> (0.7, 0.15, 0.15)"""
    found = dict.fromkeys(SPLITS, 0.0)
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip()
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name not in SPLITS or not 0 <= share <= 1:
            raise UserError(f"--split: '{part}' must be train, val or test, '=' and a share from 0 to 1")
        found[name] = share
    total = math.fsum(found.values())
    if abs(total - 1) > 1e-6:
        raise UserError(f"--split: the shares must sum to 1, not {total:g}, as in train=0.7,val=0.15,test=0.15")
    if not found["train"]:
        raise UserError("--split: train must have a share above 0")
    return (found["train"], found["val"], found["test"])


def groups_of(*columns: Sequence[str], links: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """A number per case, equal where any column agrees (empty words agree with none) or a link joins two cases."""
    from scipy.sparse import coo_array  # imported here: whoever only reads shares need not wait
    from scipy.sparse.csgraph import connected_components

    pairs = list(links)
    for column in columns:
        first: dict[str, int] = {}
        pairs += [(row, first.setdefault(word, row)) for row, word in enumerate(column) if word]
    ends, count = np.array(pairs, int).reshape(-1, 2).T, len(columns[0])
    graph = coo_array((np.ones(len(pairs), bool), tuple(ends)), (count, count))
    return connected_components(graph, directed=False)[1]


def split_by_group(
    groups: Sequence[int] | Sequence[str] | np.ndarray,
    strata: Sequence[int] | np.ndarray,
    seed: int,
    shares: Sequence[float] = SHARES,
) -> list[str]:
    """The split of every case. Groups stay whole; strata (diagnoses) come close to `shares` in each.

    Groups are dealt one by one, the largest first, each to the split that lacks its cases most.
    """
    kinds, stratum = np.unique(np.asarray(strata), return_inverse=True)
    members: dict[int | str, list[int]] = defaultdict(list)
    for row, group in enumerate(np.asarray(groups).tolist()):
        members[group].append(row)
    totals = np.bincount(stratum, minlength=len(kinds)).astype(float)
    wanted = np.array(shares, float)[:, None] * totals[None, :]  # (split, stratum)
    dealt = np.zeros_like(wanted)
    order = np.random.default_rng(seed).permutation(sorted(members))
    result = [""] * len(groups)
    for group in sorted(order.tolist(), key=lambda g: -len(members[g])):  # stable: ties keep their random order
        rows = members[group]
        has = np.bincount(stratum[rows], minlength=len(kinds)).astype(float)
        # What each split still lacks of the group's diagnoses, each in parts of its cases, and of cases in all.
        lack = ((wanted - dealt) / totals) @ has + (wanted - dealt).sum(1) / len(groups)
        lack[np.asarray(shares) == 0] = -np.inf
        chosen = int(lack.argmax())
        dealt[chosen] += has
        for r in rows:
            result[r] = SPLITS[chosen]
    return result
