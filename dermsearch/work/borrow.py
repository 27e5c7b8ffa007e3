"""Rows of metadata for cases that have none: those of the training cases of another store that look most alike.

Of one store alone, holes of its own are filled: then never from the same case, lesion or patient. Beside what was
chosen by likeness always stand two controls: the rows of random training cases, and the means of the columns. Only
columns that may be inputs are lent, so no id, label or split; no label of either store is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dermsearch.data.store import borrowed
from dermsearch.data.store.case_store import CaseStore, check_columns
from dermsearch.errors import UserError
from dermsearch.evaluate.nearest import NONE, nearest
from dermsearch.numbers import uniforms
from dermsearch.work.eye import Eye

SHARP = 0.1  # by which cosines differ for a weight to fall to a third
UNKNOWN = -1


@dataclass(frozen=True)
class Lending:
    """How rows are lent."""

    k: int = 1  # of so many cases; of several the weighted mean of numbers, the word of most weight
    least: float = -1.0  # below this cosine nothing is lent
    weights: str = "equal"  # or near: exp((cosine - the largest) / 0.1)
    columns: tuple[str, ...] = ()  # all that may be inputs, where none is named


def borrow(target: CaseStore, reference: CaseStore, eye: Eye, how: Lending, output: Path) -> dict[str, pa.Table]:
    """Write the rows by likeness and the two controls beside them; returns them by the kind of each."""
    names = how.columns or tuple(reference.columns)
    check_columns(reference, names)
    if not names:
        raise UserError(f"--from: {reference.folder} has no metadata that may be inputs")
    sources = eye.sees(reference, reference.split("train"))
    asking = eye.sees(target, np.arange(len(target)))
    if not len(sources) or not len(asking):
        raise UserError(f"--modality: no case has an image of {eye.modality}")
    same = target.fingerprint == reference.fingerprint
    groups = (target.groups()[asking], reference.groups()[sources]) if same else ()
    places, similar = nearest(eye.features(target, asking), eye.features(reference, sources), how.k, *groups)
    chosen = np.full((len(target), how.k), UNKNOWN)
    chosen[asking] = np.where(places == NONE, UNKNOWN, sources[places])
    cosine = np.full((len(target), how.k), -np.inf)
    cosine[asking] = similar
    chosen[cosine[:, 0] < how.least] = UNKNOWN
    drawn = uniforms(0, 0, np.arange(len(target)), "borrow/random", 1)[:, 0]
    anyone = sources[(drawn * len(sources)).astype(int)][:, None]
    tables = {
        "nearest": lent(target, reference, names, chosen, cosine, how.weights),
        "random": lent(target, reference, names, anyone, np.full(anyone.shape, np.nan), "equal"),
        "means": means(target, reference, names, sources),
    }
    told: dict[str, object] = {"store": target.fingerprint, "reference": reference.fingerprint, "stage": eye.stage}
    told |= {"k": how.k, "least": how.least, "weights": how.weights}
    told |= {"modality": eye.modality, "size": eye.data.size, "normalise": eye.data.normalise}
    columns = {name: reference.columns[name] for name in names}
    for kind, table in tables.items():
        borrowed.write(path_of(output, kind), table, columns, {**told, "kind": kind})
    return tables


def path_of(output: Path, kind: str) -> Path:
    """rows.arrow, and rows-random.arrow and rows-means.arrow beside it."""
    return output if kind == "nearest" else output.with_name(f"{output.stem}-{kind}{output.suffix}")


def lent(
    target: CaseStore, reference: CaseStore, names: Sequence[str], chosen: np.ndarray, cosine: np.ndarray, weights: str
) -> pa.Table:
    """What the chosen cases (target cases, k), the nearest first, tell of each column; a place of -1 tells nothing."""
    there, first = chosen != UNKNOWN, chosen[:, 0]
    share = share_of(there, cosine, weights)
    columns = {}
    for name in names:
        column = reference.columns[name]
        values = reference.index[f"meta_{name}"].combine_chunks()
        if column.kind == "number":
            number = np.asarray(values.to_numpy(zero_copy_only=False), float)[chosen]
            columns[name] = pa.array(mean_of(np.where(there, number, np.nan), share), from_pandas=True)
        else:
            coded = values.dictionary_encode()
            code = np.asarray(coded.indices.fill_null(UNKNOWN))[chosen]
            voted = vote(np.where(there, code, UNKNOWN), share)
            columns[name] = coded.dictionary.take(pa.array(voted, mask=voted == UNKNOWN)).cast(pa.string())
    cases = reference.strings("case")
    lender = np.where(first == UNKNOWN, "", cases[first])
    return table_of(target, lender.tolist(), np.where(np.isfinite(cosine[:, 0]), cosine[:, 0], np.nan), columns)


def share_of(there: np.ndarray, cosine: np.ndarray, weights: str) -> np.ndarray:
    """(n, k) weights of those that are `there`, by their cosines, the largest first."""
    if weights == "equal":
        return np.ones(there.shape)
    top = np.where(there[:, :1], cosine[:, :1], 0)  # of a row that nobody lends to there is none
    return np.exp((np.where(there, cosine, 0) - top) / SHARP)


def mean_of(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n, k) numbers and weights -> the weighted mean of those that are known; NaN of none."""
    known = ~np.isnan(values)
    total = (share * known).sum(axis=1)
    found = (share * np.where(known, values, 0)).sum(axis=1)
    return np.divide(found, total, out=np.full(len(values), np.nan), where=total > 0)


def vote(codes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n, k) codes of words, -1 unknown, and weights -> the code of most weight; of equals that of the nearer case."""
    return np.take_along_axis(codes, votes(codes, share).argmax(axis=1)[:, None], axis=1)[:, 0]


def votes(codes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n, k) the weight of each case's word among all; -1 of a case that tells none."""
    known = codes != UNKNOWN
    alike = (codes[:, :, None] == codes[:, None, :]) & known[:, None, :]
    return np.where(known, (alike * share[:, None, :]).sum(axis=2).round(12), UNKNOWN)


def means(target: CaseStore, reference: CaseStore, names: Sequence[str], sources: np.ndarray) -> pa.Table:
    """The mean of each number and the most frequent word of the cases that could lend, for everybody."""
    columns, count = {}, len(target)
    for name in names:
        values = [v for v in reference.index[f"meta_{name}"].take(pa.array(sources)).to_pylist() if v is not None]
        if reference.columns[name].kind == "number":
            columns[name] = pa.array([float(np.mean(values)) if values else None] * count, pa.float64())
        else:
            words, times = np.unique(values, return_counts=True) if values else (np.array([None]), np.zeros(1))
            columns[name] = pa.array([words[times.argmax()]] * count, pa.string())
    return table_of(target, [""] * count, np.full(count, np.nan), columns)


def table_of(target: CaseStore, lenders: list[str], cosine: np.ndarray, columns: dict[str, pa.Array]) -> pa.Table:
    """The rows of all cases, in the order of the store."""
    holes = [~np.asarray(values.is_valid()) for values in columns.values()]
    missing = [[name for name, lacks in zip(columns, row, strict=True) if lacks] for row in zip(*holes, strict=True)]
    return pa.table(
        {
            "case": pa.array(target.strings("case").tolist(), pa.string()),
            "reference": pa.array(lenders, pa.string()),
            "similarity": pa.array(cosine, from_pandas=True),
            "missing": pa.array(missing, pa.list_(pa.string())),
            **columns,
        }
    )
