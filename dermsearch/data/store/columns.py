"""Metadata as inputs: numbers in spreads from their mean, words as places in a vocabulary, and a mask of what is known.

Mean, spread and vocabulary are those of the training cases alone. A word that none of them has is not known.
"""

from __future__ import annotations

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


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    return np.from_dlpack(values.combine_chunks())  # Arrow's own way imports pandas first
