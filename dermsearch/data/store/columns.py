"""Metadata as inputs: numbers in spreads from their mean, words as places in a vocabulary, and a mask of what is known.

Mean, spread and vocabulary are those of the training cases alone. A word that none of them has is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermsearch.data.case import Column


@dataclass(frozen=True)
class Table:
    """Metadata of some cases, a column for each name that was asked for."""

    columns: tuple[Column, ...]
    values: np.ndarray  # float32 (cases, columns), 0 where nothing is known
    known: np.ndarray  # bool (cases, columns)


def fit(column: Column, values: pa.ChunkedArray) -> Column:
    """The column with what the training cases' values tell of it; `values` are theirs, null where missing."""
    if column.kind == "word":
        return replace(column, vocabulary=tuple(sorted(pc.unique(values.drop_null()).to_pylist())))
    mean, spread = pc.mean(values).as_py(), pc.stddev(values).as_py()  # None of none
    return replace(column, mean=mean or 0.0, spread=spread or 1.0)


def encode(column: Column, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """float32 values, 0 where nothing is known, and bool: what is known."""
    if column.kind == "word":
        values = pc.index_in(values, pa.array(column.vocabulary, pa.string()))
    known = _numpy(pc.cast(pc.is_valid(values), pa.uint8())).astype(bool)
    if column.kind == "word":
        return _numpy(pc.fill_null(values, 0)).astype(np.float32), known
    return ((_numpy(pc.fill_null(values, column.mean)) - column.mean) / column.spread).astype(np.float32), known


def of_patients(table: Table, who: np.ndarray) -> tuple[np.ndarray, Table]:
    """What cases' tables tell of their patients: the patients' numbers, rising, and a row for each.

    A number is the median of what is known, a word the most frequent, of equals the first of the vocabulary. Cases of
    patient -1 tell nothing of anybody.
    """
    mine = who >= 0
    patients, place = np.unique(who[mine], return_inverse=True)
    values = np.zeros((len(patients), len(table.columns)), np.float32)
    known = np.zeros(values.shape, bool)
    for j, column in enumerate(table.columns):
        told = table.known[mine, j]
        value, whose = table.values[mine, j][told], place[told]
        count = np.bincount(whose, minlength=len(patients))
        known[:, j] = has = count > 0
        if column.kind == "word":
            votes = np.zeros((len(patients), max(1, len(column.vocabulary))), np.int64)
            np.add.at(votes, (whose, value.astype(np.int64)), 1)
            values[:, j] = votes.argmax(1)
            continue
        value, first = value[np.lexsort((value, whose))], (count.cumsum() - count)[has]
        low, high = first + (count[has] - 1) // 2, first + count[has] // 2
        values[has, j] = (value[low] + value[high]) / 2
    return patients, Table(table.columns, values, known)


def onto(table: Table, columns: Sequence[Column]) -> Table:
    """The same cases in other columns, as those of another store: what these columns do not tell is not known.

    Columns are the same by name and kind. Values keep their meaning: numbers are scaled anew, words looked up.
    """
    values = np.zeros((len(table.values), len(columns)), np.float32)
    known = np.zeros(values.shape, bool)
    for j, wanted in enumerate(columns):
        alike = [i for i, c in enumerate(table.columns) if (c.name, c.kind) == (wanted.name, wanted.kind)]
        for i in alike:
            column, value, known[:, j] = table.columns[i], table.values[:, i], table.known[:, i]
            if wanted.kind == "word":
                place = [wanted.vocabulary.index(w) if w in wanted.vocabulary else -1 for w in column.vocabulary]
                value = np.array([*place, -1])[np.where(known[:, j], value, -1).astype(np.int64)]
                known[:, j] &= value >= 0
            elif column != wanted:
                value = (value * column.spread + column.mean - wanted.mean) / wanted.spread
            values[:, j] = np.where(known[:, j], value, 0)
    return Table(tuple(columns), values, known)


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    return np.from_dlpack(values.combine_chunks())  # Arrow's own way imports pandas first
