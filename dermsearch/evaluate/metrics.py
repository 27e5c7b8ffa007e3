"""Metrics with cluster-bootstrap intervals.

Everything is a function of case weights of shape (replicates, cases): a row of ones is the number itself,
a row of counts is a bootstrap resample. So the point estimate and its interval share one implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dermsearch.data.case import NAMED

MEAN_LABEL = "mean"
# What is averaged over the labels; a class's own numbers are not comparable across labels.
AVERAGED = ("balanced_accuracy", "macro_f1", "auc")
# What is known of each class, and averaged over the labels' named classes as papers on the seven points do.
OF_A_CLASS = ("auc", "recall", "specificity", "precision")
REPLICATES = 1000
# One seed for every stage and protocol: two encoders judged on the same cases see the same resamples.
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Measure:
    """One number in every replicate: `values[0]` on the data themselves, `values[1:]` on its resamples."""

    label: str
    cls: str  # "" where the number is of the whole label
    metric: str
    n: int  # cases that the number is computed on
    values: np.ndarray


def case_weights(groups: np.ndarray, replicates: int = REPLICATES, seed: int = BOOTSTRAP_SEED) -> np.ndarray:
    """Weights (1 + replicates, cases): ones, then how often each case's group is drawn with replacement.

    Groups (patients) are drawn rather than cases, since lesions of one patient are not independent.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:  # nothing to resample: no interval
        return np.ones((1, len(member)))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    return np.vstack([np.ones(len(member)), counts[:, member]])


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """Weighted confusion matrices (replicates, true class, predicted class)."""
    cells = np.eye(classes * classes)[truth * classes + predicted]
    return (weights @ cells).reshape(len(weights), classes, classes)


def recalls(matrices: np.ndarray) -> np.ndarray:
    """Recall of each class (replicates, classes); NaN where the class has no case."""
    return _ratio(np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=2))


def specificities(matrices: np.ndarray) -> np.ndarray:
    """Share of the other classes' cases not taken for each class (replicates, classes); NaN where there are none."""
    others = matrices.sum(axis=(1, 2))[:, None] - matrices.sum(axis=2)
    taken = matrices.sum(axis=1) - np.diagonal(matrices, axis1=1, axis2=2)
    return _ratio(others - taken, others)


def precisions(matrices: np.ndarray) -> np.ndarray:
    """Share of each class's predictions that are right (replicates, classes): 0 where it is never predicted."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    found = _ratio(hits, matrices.sum(axis=1))
    return np.where(np.isnan(found) & (matrices.sum(axis=(1, 2)) > 0)[:, None], 0.0, found)


def balanced_accuracy(matrices: np.ndarray) -> np.ndarray:
    """Mean recall over the classes present in the truth."""
    return _mean(recalls(matrices))


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes present in the truth or in the prediction, as scikit-learn averages."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    return _mean(_ratio(2 * hits, matrices.sum(axis=1) + matrices.sum(axis=2)))


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per replicate, a tie counting half; NaN unless both outcomes have weight."""
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked, outcome = weights[:, order], positive[order].astype(float)
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    if len(starts) < len(order):  # equal scores form one group
        up = np.add.reduceat(ranked * outcome, starts, axis=1)
        down = np.add.reduceat(ranked * (1 - outcome), starts, axis=1)
    else:
        up, down = ranked * outcome, ranked * (1 - outcome)
    below = np.cumsum(down, axis=1)
    won = np.einsum("rg,rg->r", up, below - down / 2)
    return _ratio(won, up.sum(axis=1) * below[:, -1])


def measure(
    label: str, truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> list[Measure]:
    """Every metric of one label. `truth` holds class indices, -1 for unknown; those cases are left out.

    The macro mean of the AUC is over the classes with both outcomes present, in each replicate its own.
    """
    known = truth >= 0
    truth, probabilities, weights = truth[known], probabilities[known], weights[:, known]
    predicted = probabilities.argmax(axis=1)
    matrices = confusion(truth, predicted, len(classes), weights)
    positive = truth[:, None] == np.arange(len(classes))
    areas = [auc(positive[:, c], probabilities[:, c], weights) for c in range(len(classes))]
    n = len(truth)
    found = [
        Measure(label, "", "balanced_accuracy", n, balanced_accuracy(matrices)),
        Measure(label, "", "macro_f1", n, macro_f1(matrices)),
        Measure(label, "", "auc", n, _mean(np.stack(areas, axis=1))),
    ]
    counts = confusion(truth, predicted, len(classes), np.ones((1, n)))[0].astype(int)
    by_class = zip(recalls(matrices).T, specificities(matrices).T, precisions(matrices).T, strict=True)
    for c, (name, (recall, specificity, precision)) in enumerate(zip(classes, by_class, strict=True)):
        positives = int(counts[c].sum())
        found += [
            Measure(label, name, "auc", n, areas[c]),
            Measure(label, name, "recall", positives, recall),
            Measure(label, name, "specificity", n - positives, specificity),
            Measure(label, name, "precision", int(counts[:, c].sum()), precision),
        ]
        # The confusion matrix, from which every other number of the arg-max can be worked out: counts, no interval.
        found += [
            Measure(label, name, f"as:{other}", positives, np.array([float(counts[c, d])]))
            for d, other in enumerate(classes)
        ]
    return found


def mean_over_labels(measures: Iterable[Measure], n: int) -> list[Measure]:
    """Whole-label metrics, and those of each label's named class, averaged over the labels.

    Replicate by replicate, since labels share their resamples.
    """
    measures = list(measures)
    means = []
    for metric in AVERAGED:
        stack = [m.values for m in measures if m.metric == metric and not m.cls]
        # A label without a value of its own (no AUC where the held-out cases show one class) is left out of
        # the value and of every resample alike, since resampling adds no class.
        if stack:
            means.append(Measure(MEAN_LABEL, "", metric, n, _mean(np.stack(stack, axis=1))))
    for metric in OF_A_CLASS:
        stack = [m.values for m in measures if m.metric == metric and m.cls and m.cls == NAMED.get(m.label)]
        if stack:
            means.append(Measure(MEAN_LABEL, "", f"named_{metric}", n, _mean(np.stack(stack, axis=1))))
    return means


def summary(values: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None, float | None]:
    """A measure's value and its percentile interval; None where it is not defined."""
    point, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(point):
        return None, None, None
    if len(drawn) == 0:
        return point, None, None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return point, float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, NaN where `below` is zero."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is (without numpy's warning)."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(float))
