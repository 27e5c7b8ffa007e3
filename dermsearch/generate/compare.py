"""Made cases against real ones: how near they are, how varied, whether they show what was asked, what they copy.

Real is held against real beside it: validation against training cases, which share no patient. Test cases are not
looked at. Cases of a class that the made ones do not have are left out, and made ones are taken in the shares that
classes have among the real, so that no number tells of shares alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dermsearch.data.prepare.lookalikes import copies
from dermsearch.data.prepare.version import Version
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.generate.judge import SOME, Critic, seen
from dermsearch.generate.quality import distances, kid, manifolds, matched, mean
from dermsearch.metrics import summary

NEIGHBOURS = 5  # whose farthest is an image's reach
CLOSE = 0.01  # the share of validation cases that lie nearer to a training case than what is called close


@dataclass(frozen=True)
class Number:
    """One number."""

    what: str
    value: float | None
    low: float | None
    high: float | None
    n: int  # images that it is of


@dataclass(frozen=True)
class Quality:
    """What was found, and of every made image the training case that it is most alike to."""

    lines: list[Number]
    copies: list[tuple[str, str]]  # made cases that are nearly the same picture as a training case, which stands beside
    made: np.ndarray  # cases
    nearest: np.ndarray  # training cases
    distance: np.ndarray

    def told(self) -> Iterator[str]:
        """As a table for people."""
        wide = max(len(line.what) for line in self.lines)
        for line in self.lines:
            between = "" if line.low is None else f"  [{line.low:.4g}, {line.high:.4g}]"
            value = "not defined" if line.value is None else f"{line.value:9.4g}"
            yield f"{line.what:<{wide}}  {value}{between}  of {line.n:,}"
        for made, real in self.copies[:5]:
            yield f"{made} is nearly the same picture as {real}"


def version_of(made: CaseStore) -> Version:
    """What a store of made cases was asked to show."""
    told = made.settings
    if told.get("source") != "made":
        raise UserError(f"{made.folder}: holds no made cases; `dermsearch data make` makes some")
    return Version(
        told["label"], {name: tuple(of) for name, of in told["classes"].items()}, told["others"], told["own_classes"]
    )


def compare(made: CaseStore, real: CaseStore, judge: Critic, most: int = SOME, seed: int = 0) -> Quality:
    """At most so many images of each kind."""
    version = version_of(made)
    if made.settings["of"] != real.fingerprint:
        raise UserError(f"--real: these cases were made after other ones than those in {real.folder}")
    modality = judge.modality
    train, held = (_of(version, real, modality, split) for split in ("train", "val"))
    if not len(held) or not len(train):
        raise UserError(f"{real.folder}: has no training or no validation case of a class that was made")
    rng = np.random.default_rng(seed)
    train, held = (np.sort(rng.permutation(rows)[:most]) for rows in (train, held))
    rows = np.flatnonzero(made.has(modality))
    rows = rows[matched(_classes(made, version, rows), version.of(real, train), most, seed)]
    groups = real.groups()
    features = {"real": judge.features(real, train), "held": judge.features(real, held)}
    features |= {"made": judge.features(made, rows), "noise": judge.features_of(noise(made, len(held), seed))}
    lines = []
    for what, name, of in (
        ("KID, made against real", "made", None),
        ("KID, real against real", "held", groups[held]),
        ("KID, noise against real", "noise", None),
    ):
        values = kid(features[name], features["real"], of, groups[train])
        lines.append(Number(what, *summary(values), len(features[name])))
    few = matched(_classes(made, version, rows), version.of(real, train), len(held), seed)
    for who, x in (("made", features["made"][few]), ("real", features["held"])):
        k = min(NEIGHBOURS, len(x) - 1, len(train) - 1)
        if k < 1:
            continue
        for what, each in manifolds(features["real"], x, k).items():
            of = groups[train] if what in ("recall", "coverage") else groups[held] if who == "real" else None
            lines.append(Number(f"{what}, {who}", *summary(mean(each, of)), len(x)))
    lines += list(fidelity(made, real, judge, version, rows, held))
    between = distances(features["made"], features["real"])
    nearest, far = between.argmin(1), distances(features["held"], features["real"]).min(1)
    close = (between.min(1) < np.quantile(far, CLOSE)).astype(float)
    lines.append(
        Number(f"nearer to a training case than {1 - CLOSE:.0%} of validation cases", *summary(mean(close)), len(rows))
    )
    found, alike = copies(made, real, modality), copies(real, real, modality)
    lines.append(Number("near-duplicates of training cases", float(len(found)), None, None, len(made)))
    lines.append(Number("the same of validation cases", float(len(alike)), None, None, len(real.split("val"))))
    names = real.strings("case")[train]
    return Quality(lines, found, made.strings("case")[rows], names[nearest], between.min(1))


def _of(version: Version, cases: CaseStore, modality: str, split: str) -> np.ndarray:
    """Real cases of a split that are of a made class."""
    rows = seen(cases, modality, split)
    return rows[version.of(cases, rows) >= 0]


def _classes(made: CaseStore, version: Version, rows: np.ndarray) -> np.ndarray:
    """The made class of made cases, numbered as in the version."""
    names = made.classes[version.label]
    order = {name: i for i, name in enumerate(version.classes)}
    number = np.array([*(order.get(name, -1) for name in names), -1])
    return number[made.label(version.label)[rows]]


def fidelity(
    made: CaseStore, real: CaseStore, judge: Critic, version: Version, rows: np.ndarray, held: np.ndarray
) -> Iterator[Number]:
    """Of each class, the share that the judge takes for it: of made images, and of real ones that it has not seen."""
    groups = real.groups()
    names = real.classes[version.label]
    for who, cases, chosen, truth, of in (
        ("made", made, rows, _classes(made, version, rows), None),
        ("real", real, held, version.of(real, held), groups[held]),
    ):
        said = judge.predict(cases, chosen)[version.label]
        summed = np.stack([said[:, [names.index(n) for n in of_]].sum(1) for of_ in version.classes.values()], 1)
        right = (summed.argmax(1) == truth).astype(float)
        for number, name in enumerate(version.classes):
            here = truth == number
            if here.any():
                each = mean(right[here], None if of is None else of[here])
                yield Number(f"taken for {name}, {who}", *summary(each), int(here.sum()))


def noise(made: CaseStore, count: int, seed: int) -> np.ndarray:
    """Images of nothing, as large as the made ones, grey."""
    grey = np.random.default_rng([seed, count]).integers(0, 256, (count, made.side, made.side, 1), np.uint8)
    return np.repeat(grey, 3, 3)
