"""Which cases are made: the classes of one label, and whether other findings may stand beside (AISEEME D4, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError, nearest

NOTHING = ("absent", "none", "no", "no finding")  # what a class is called that says that there is nothing


@dataclass(frozen=True)
class Version:
    """What made cases show. A class may stand for several of the real ones."""

    label: str
    classes: Mapping[str, tuple[str, ...]]  # of the made cases -> those of the real ones
    others: Literal["any", "absent"]  # beside it: as in the real cases, or nothing
    own: bool  # are these classes the user's own? Then a made case has this label alone

    def of(self, cases: CaseStore, rows: np.ndarray) -> np.ndarray:
        """The made class that each of these real cases would have, -1 where it has none."""
        names = cases.classes[self.label]
        group = {name: i for i, of in enumerate(self.classes.values()) for name in of}
        number = np.array([*(group.get(name, -1) for name in names), -1])  # the last is of those that are unknown
        found = number[cases.label(self.label)[rows]]
        if self.others == "absent":
            truth = truth_of(cases, rows)
            found[(cleared(truth, cases, self.label) != truth).any(1)] = -1
        return found

    def asked(self, cases: CaseStore, rows: np.ndarray, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Made classes (n,), `each` of every one, and all labels (n, labels) of cases that have it, drawn at random."""
        drawn = Version(self.label, self.classes, "any", self.own).of(cases, rows)
        truth, rng = truth_of(cases, rows), np.random.default_rng([seed, each])
        found = []
        for number, name in enumerate(self.classes):
            there = np.flatnonzero(drawn == number)
            if not len(there):
                raise UserError(f"--class: no training case has {self.label} {name}, so none can be made")
            found.append(truth[rng.choice(there, each)])
        labels = np.concatenate(found)
        if self.others == "absent":
            labels = cleared(labels, cases, self.label)
        return np.repeat(np.arange(len(self.classes)), each), labels


def version(
    cases: CaseStore, label: str | None, classes: Sequence[str], others: Literal["any", "absent"] = "any"
) -> Version:
    """What a user asks for: a label, the first if none is named, and classes as NAME or NAME=ONE+OTHER, or all."""
    if not cases.classes:
        raise UserError(f"{cases.folder}: its cases have no label, so no class of it can be made")
    label = label or next(iter(cases.classes))
    if label not in cases.classes:
        raise UserError(f"--label: the cases have no label '{label}'; {nearest(label, cases.classes)}")
    there = np.unique(cases.label(label)[cases.split("train")])
    known = [name for i, name in enumerate(cases.classes[label]) if i in there]
    if not known:
        raise UserError(f"{cases.folder}: no training case has a known {label}; name another --label")
    if not classes:
        return Version(label, {name: (name,) for name in known}, others, False)
    found: dict[str, tuple[str, ...]] = {}
    for text in classes:
        name, _, of = text.partition("=")
        found[name] = tuple(of.split("+")) if of else (name,)
    named = [each for of in found.values() for each in of]
    for each in named:
        if each not in known:
            raise UserError(f"--class: no training case has {label} '{each}'; {nearest(each, known)}")
    if len(set(named)) < len(named) or len(found) < len(classes):
        raise UserError("--class: each class may stand once")
    if len(found) < 2:
        raise UserError("--class: name two or more: a classifier needs classes to tell apart")
    return Version(label, found, others, True)


def truth_of(cases: CaseStore, rows: np.ndarray) -> np.ndarray:
    """(n, labels) classes of all labels, -1 where unknown."""
    return np.stack([cases.label(label)[rows] for label in cases.classes], 1).astype(np.int64)


def cleared(truth: np.ndarray, cases: CaseStore, label: str) -> np.ndarray:
    """The same labels with nothing beside the case's class of `label`, in those that can say so."""
    found, at = truth.copy(), list(cases.classes).index(label)
    for column, (other, names) in enumerate(cases.classes.items()):
        nothing = [i for i, name in enumerate(names) if name in NOTHING]
        if other == label or len(nothing) != 1:
            continue
        for own, name in enumerate(cases.classes[label]):
            if other == name:  # this label is that class by another name
                continue
            there = truth[:, at] == own
            if label in names and name not in NOTHING:  # the other way round
                there &= truth[:, column] != names.index(label)
            found[there, column] = nothing[0]
    return found
