"""The most similar of many keys by cosine, and how many lie before one's own: block by block, in little memory."""

from __future__ import annotations

import numpy as np

from dermsearch.evaluate.knn import most_similar, unit
from dermsearch.numbers import uniforms

QUERIES, KEYS = 512, 16384  # compared at once
NONE = -1  # where there are fewer keys than were asked for


def nearest(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    whose: np.ndarray | None = None,
    owners: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(queries, k) places of the most similar keys, in falling order, and their cosines; -1 and -inf of none.

    None is of the query's own patient, where `whose` queries and keys (`owners`) are is told. Of equals those come
    first that a number drawn for each key puts there, so that an encoder which sees all alike finds any.
    """
    from threadpoolctl import threadpool_limits

    order = uniforms(0, 0, np.arange(len(keys)), "nearest", 1)[:, 0].argsort(kind="stable")
    found = np.full((len(queries), k), NONE), np.full((len(queries), k), -np.inf)
    own = np.zeros(len(queries), bool)
    if whose is not None and owners is not None:
        own = np.isin(whose, owners)
    with threadpool_limits(1, user_api="blas"):  # the last bits do not depend on how many cores there are
        asked = unit(queries)
        for at in range(0, len(keys), KEYS):
            some = order[at : at + KEYS]
            known = unit(keys[some])
            for start in range(0, len(queries), QUERIES):
                rows = slice(start, start + QUERIES)
                similar = (asked[rows] @ known.T).round(9)
                if own[rows].any():
                    assert whose is not None and owners is not None
                    similar[whose[rows, None] == owners[None, some]] = -np.inf
                best = most_similar(similar, min(k, len(some)))
                places = [found[0][rows], some[best]]
                cosines = [found[1][rows], np.take_along_axis(similar, best, axis=1)]
                place, cosine = (np.concatenate(each, axis=1) for each in (places, cosines))
                first = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
                for kept, all_of in zip(found, (place, cosine), strict=True):
                    kept[rows] = np.take_along_axis(all_of, first, axis=1)
    found[0][~np.isfinite(found[1])] = NONE
    return found


def before_own(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each query how many keys are more similar than the one of its own row, and how many others as similar."""
    from threadpoolctl import threadpool_limits

    better, ties = np.zeros(len(queries), int), np.full(len(queries), -1)
    with threadpool_limits(1, user_api="blas"):
        asked, known = unit(queries), unit(keys)
        for start in range(0, len(queries), QUERIES):
            rows = np.arange(start, min(start + QUERIES, len(queries)))
            for at in range(0, len(keys), KEYS):
                if at == 0:
                    own = np.einsum("nd,nd->n", asked[rows], known[rows]).round(9)[:, None]
                similar = (asked[rows] @ known[at : at + KEYS].T).round(9)
                better[rows] += (similar > own).sum(axis=1)
                ties[rows] += (similar == own).sum(axis=1)
    return better, np.maximum(ties, 0)
