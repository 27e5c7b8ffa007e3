"""Batches of patients: some patients, and some lesions of each."""

from __future__ import annotations

import numpy as np


def patient_order(
    seed: int,
    epoch: int,
    patients: np.ndarray,
    lesions: np.ndarray,
    count: int,
    batch: int,
    each: int,
    by_lesions: bool = False,
    first: np.ndarray | None = None,
) -> np.ndarray:
    """The units of an epoch, `count` of them, in batches of patients with `each` units of one; alike on every process.

    `patients` and `lesions` are numbers of every unit's; a unit of patient -1 is one by itself. Patients are drawn
    without replacement within a batch, evenly or by the lesions that they can give. Then one unit of each of their
    lesions, those that are `first` before others; who has fewer than `each` comes again from the front.
    """
    units = np.arange(len(patients))
    own = np.where(patients < 0, patients.max(initial=0) + 1 + units, patients)
    order = own.argsort(kind="stable")
    start = np.flatnonzero(np.diff(own[order], prepend=-1))
    people = np.split(order, start[1:])
    several = [len(np.unique(lesions[unit])) for unit in people]
    chances = np.minimum(several, each) / np.minimum(several, each).sum() if by_lesions else None
    rng, found = np.random.default_rng([seed, epoch, len(units)]), []
    for _ in range(count // batch):
        drawn = rng.choice(len(people), min(batch // each, len(people)), replace=False, p=chances)
        for person in np.resize(drawn, batch // each):
            mine = rng.permutation(people[person])
            mine = mine[np.sort(np.unique(lesions[mine], return_index=True)[1])]
            if first is not None:
                mine = mine[(~first[mine]).argsort(kind="stable")]
            found.append(np.resize(mine, each))
    return np.concatenate(found)
