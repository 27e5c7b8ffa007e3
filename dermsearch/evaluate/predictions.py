"""What a classifier says of every held-out case, as a columnar table: any difference can be paired afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from dermsearch.results.tables.schema import SAID


def predictions(
    truth: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    groups: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    cases: np.ndarray,
) -> pa.Table:
    """Probabilities (cases, classes) by label as a row for each case and class."""
    tables = [
        _of_label(label, names, truth[label], groups, predicted[label], cases) for label, names in classes.items()
    ]
    return pa.concat_tables([pa.schema(SAID).empty_table(), *tables]).unify_dictionaries().combine_chunks()


def _of_label(
    label: str,
    names: Sequence[str],
    truth: np.ndarray,
    groups: np.ndarray,
    probabilities: np.ndarray,
    cases: np.ndarray,
) -> pa.Table:
    k, n = len(names), len(cases)
    known = np.repeat(truth, k)
    columns = [
        _words(np.zeros(n * k, np.int32), [label]),
        _words(np.repeat(np.arange(n, dtype=np.int32), k), cases.tolist()),
        pa.array(np.repeat(groups, k), pa.int32()),
        _words(known, names, known < 0),
        _words(np.tile(np.arange(k, dtype=np.int32), n), names),
        pa.array(probabilities.reshape(-1), pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(SAID))


def _words(which: np.ndarray, words: Sequence[str], unknown: np.ndarray | None = None) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(which, pa.int32(), mask=unknown), pa.array(list(words), pa.string()))
