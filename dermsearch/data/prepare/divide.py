"""Which cases belong together, and which split each goes to: as a release publishes it, or dealt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dermsearch.data.case import SPLITS
from dermsearch.data.sources.base import CaseRecord, Problem
from dermsearch.data.store.splits import SHARES, By, Split, groups_of, split_by_group
from dermsearch.errors import UserError

NOTE = pa.schema([(name, pa.string()) for name in ("case", "image", "done", "reason", "where")])


def note(record: CaseRecord | Problem, image: str, done: str, reason: str) -> dict[str, str]:
    """A row of the quarantine table."""
    return {"case": record.case, "image": image, "done": done, "reason": reason, "where": record.where}


def divide(
    records: Sequence[CaseRecord],
    label: str | None,
    wanted: Split,
    links: list[tuple[int, int]],
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """The group and split of every case that is kept, stratified by a label, and how they came about.

    A case that is left out, as a copy of another, still joins what it shares a patient, a lesion or a picture with.
    """
    kept = np.arange(len(records)) if kept is None else kept
    patients, lesions = [r.patient for r in records], [r.lesion for r in records]
    groups = _of_kept(kept, groups_of(patients, lesions, links=links))
    records = [records[row] for row in kept.tolist()]
    published = [r.split for r in records]
    by, shares = unit_of(wanted, records), wanted.shares or SHARES
    words = [r.labels.get(label) or "" if label else "" for r in records]
    strata = np.unique(words, return_inverse=True)[1]
    about: dict[str, Any] = {"by": by, "seed": wanted.seed}
    if by != "published":
        about["shares"] = shares
        lesion = _of_kept(kept, groups_of(lesions, links=links))
        units = {"patient": groups, "lesion": lesion, "image": np.arange(len(records))}[by]
        return groups, split_by_group(units, strata, wanted.seed, shares), about
    # A case that no split was published of goes where its patient's others are, and of several sides farthest from
    # training.
    side = {group: s for s in SPLITS for group, own in zip(groups.tolist(), published, strict=True) if own == s}
    splits = [own or side.get(group, "train") for group, own in zip(groups.tolist(), published, strict=True)]
    share = shares[1] / (shares[0] + shares[1])
    if "val" not in splits and share:  # selection needs one: a part of the training cases
        rows = np.array([i for i, s in enumerate(splits) if s == "train"])
        dealt = split_by_group(groups[rows], strata[rows], wanted.seed, (1 - share, share, 0))
        for row, split in zip(rows, dealt, strict=True):
            splits[row] = split
        about["validation"] = "made from the published training cases"
    return groups, splits, about


def _of_kept(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The groups of these rows, numbered as they come, whoever was left out before them."""
    _, first, own = np.unique(groups[rows], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[own].astype(groups.dtype)


def unit_of(wanted: Split, records: Sequence[CaseRecord]) -> By:
    """What is dealt whole: what was asked for, if the release knows it, else the best that it knows."""
    known: dict[By, bool] = {
        "published": any(r.split for r in records),
        "patient": any(r.patient for r in records),
        "lesion": any(r.lesion for r in records),
        "image": True,
    }
    if wanted.by and not known[wanted.by]:
        what = "has no published split" if wanted.by == "published" else f"names no {wanted.by}s"
        raise UserError(f"--split-by {wanted.by}: the release {what}")
    best = next(by for by in known if known[by] and not (by == "published" and wanted.shares))
    if best == "image" and not wanted.by:
        raise UserError(
            "--split-by: the release names neither patients nor lesions, so its images can only be split by image, "
            "which puts pictures of one person on both sides; --split-by image does so, and every table will say it"
        )
    return wanted.by or best


def torn(records: Sequence[CaseRecord], groups: np.ndarray, splits: list[str]) -> list[dict[str, str]]:
    """A note per patient or lesion that the published split has on both sides."""
    order = np.argsort(groups, kind="stable")
    notes = []
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        sides = [s for s in SPLITS if s in {splits[r] for r in rows}]
        if len(sides) > 1:
            told = [(k, word) for k in ("patient", "lesion") for r in rows if (word := getattr(records[r], k))]
            who = " ".join(told[0]) if told else "the same image"
            reason = f"{who} is in {' and '.join(sides)} of the published split"
            notes.append(note(records[rows[0]], "", "kept", reason))
    return notes
