"""What is found for held-out cases among the training cases, as numbers: are they of the same class?

precision_at_k  the share of the first k that are
hit_at_k        whether one of them is
map_at_k        average precision: of every place that holds one, the precision up to there, summed and divided by how
                many could stand there, which is k or as many as there are

A case whose class no training case of another patient has finds nothing: 0 in all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dermsearch import metrics
from dermsearch.metrics import MEAN_LABEL, Measurement

KS = (1, 5, 10)
KINDS = ("precision", "hit", "map")
METRICS = tuple(f"{kind}_at_{k}" for kind in KINDS for k in KS)


def scores(right: np.ndarray, relevant: np.ndarray, ks: Sequence[int] = KS) -> dict[str, np.ndarray]:
    """Of every query, by metric: `right` (queries, places) is what is of its class, of as many as `relevant`."""
    told = {}
    ranks = 1 + np.arange(right.shape[1])
    precise = right.cumsum(axis=1) / ranks
    for k in ks:
        told[f"precision_at_{k}"] = right[:, :k].sum(axis=1) / k
        told[f"hit_at_{k}"] = right[:, :k].any(axis=1).astype(float)
        told[f"map_at_{k}"] = (precise * right)[:, :k].sum(axis=1) / np.maximum(1, np.minimum(k, relevant))
    return told


def measures(
    truth: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    whose: np.ndarray,
    owners: np.ndarray,
    found: Mapping[str, np.ndarray],
) -> Iterator[Measurement]:
    """By label: of all held-out cases whose class is known, then of each class; and the mean over the labels.

    `truth` and `whose` are of held-out cases, `known` and `owners` of training cases; `found` are places among these.
    """
    weights, whole = metrics.case_weights(whose), list[Measurement]()
    for label, names in classes.items():
        asked = truth[label] >= 0
        places, true = found[label][asked], truth[label][asked]
        right = (known[label][places] == true[:, None]) & (places >= 0)
        told = scores(right, same_class(true, whose[asked], known[label], owners))
        for metric, values in told.items():
            whole.append(Measurement(label, "", metric, len(true), mean(values, weights[asked])))
            yield whole[-1]
            for c, name in enumerate(names):
                of_class = true == c
                if of_class.any():
                    drawn = mean(values[of_class], weights[asked][of_class])
                    yield Measurement(label, name, metric, int(of_class.sum()), drawn)
    cases = int(np.any([t >= 0 for t in truth.values()], axis=0).sum()) if truth else 0
    for metric in METRICS:
        each = [m.values for m in whole if m.metric == metric and np.isfinite(m.values[0])]
        if each:
            yield Measurement(MEAN_LABEL, "", metric, cases, np.mean(each, axis=0))


def same_class(true: np.ndarray, whose: np.ndarray, known: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """How many training cases of other patients have each query's class."""
    counts = np.bincount(known[known >= 0], minlength=int(true.max(initial=0)) + 1)
    relevant = counts[true]
    shared = np.flatnonzero(np.isin(whose, owners))
    for row in shared:  # few: whoever splits by patient has none
        relevant[row] -= np.count_nonzero((owners == whose[row]) & (known == true[row]))
    return relevant


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the cases of each replicate; NaN where none of them is drawn."""
    total = weights.sum(axis=0)
    return np.divide(values @ weights, total, out=np.full(len(total), np.nan), where=total > 0)
