"""Metrics with cluster-bootstrap intervals.

Everything is a function of case weights of shape (cases, replicates): a column of ones is the number itself, a column
of counts is a bootstrap resample. So the point estimate and its interval share one implementation. Its cost grows with
cases x classes x replicates: a class's own numbers are sums of weights over cases, and nothing is kept of every pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MEAN_LABEL = "mean"
# What is averaged over the labels; a class's own numbers are not comparable across labels.
AVERAGED = ("balanced_accuracy", "macro_f1", "auc")
# What is known of each class, and averaged over the labels' named classes as papers on the seven points do.
OF_A_CLASS = ("auc", "recall", "specificity", "precision")
LEVEL = 0.95
REPLICATES = 1000
# One seed for every stage and protocol: two encoders judged on the same cases see the same resamples.
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Measurement:
    """One number in every replicate: `values[0]` on the data themselves, `values[1:]` on its resamples."""

    label: str
    cls: str  # "" where the number is of the whole label
    metric: str
    n: int  # cases that the number is computed on
    values: np.ndarray


def case_weights(groups: np.ndarray, replicates: int = REPLICATES, seed: int = BOOTSTRAP_SEED) -> np.ndarray:
    """Weights (cases, 1 + replicates): ones, then how often each case's group is drawn with replacement.

    Groups (patients) are drawn rather than cases, since lesions of one patient are not independent.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:  # nothing to resample: no interval
        return np.ones((len(member), 1), np.float32)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    weights = np.empty((len(member), 1 + replicates), np.float32)  # sums of them are exact below 2^24
    weights[:, 0] = 1
    weights[:, 1:] = counts.astype(np.float32).T[member]
    return weights


def totals(slots: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """The weight in each of `count` slots (slots, replicates), where `slots` says which one a case is in, or -1."""
    from scipy.sparse import csr_array  # imported here: whoever only lists protocols need not wait

    cases = np.argsort(slots, kind="stable")[np.count_nonzero(slots < 0) :]
    ends = np.bincount(slots[cases], minlength=count).cumsum()
    ones = np.ones(len(cases), weights.dtype)
    return csr_array((ones, cases, np.r_[0, ends]), shape=(count, len(slots))) @ weights


class Tally:
    """What the predicted classes come to: of every class (classes, replicates) hits, cases and predictions."""

    def __init__(self, truth: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray) -> None:
        right = np.where(truth == predicted, truth, -1)
        self.hits, self.true, self.taken = (
            totals(slots, classes, weights).astype(float) for slots in (right, truth, predicted)
        )
        self.all = self.true.sum(axis=0)  # cases (replicates,)

    def recall(self) -> np.ndarray:
        """NaN where the class has no case."""
        return _ratio(self.hits, self.true)

    def specificity(self) -> np.ndarray:
        """Share of the other classes' cases not taken for the class; NaN where there are none."""
        others = self.all - self.true
        return _ratio(others - (self.taken - self.hits), others)

    def precision(self) -> np.ndarray:
        """Share of the class's predictions that are right: 0 where it is never predicted."""
        share = _ratio(self.hits, self.taken)
        return np.where(np.isnan(share) & (self.all > 0), 0.0, share)

    def balanced_accuracy(self) -> np.ndarray:
        """Mean recall over the classes present in the truth."""
        return _mean(self.recall())

    def macro_f1(self) -> np.ndarray:
        """Mean F1 over the classes present in the truth or in the prediction, as scikit-learn averages."""
        return _mean(_ratio(2 * self.hits, self.taken + self.true))


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per replicate, a tie counting half; NaN unless both outcomes have weight.

    The positives' scores cut the line into pieces; the weight in each is all that the area needs.
    """
    marks = np.unique(scores[positive])
    at = np.searchsorted(marks, scores)
    tied = np.isin(scores, marks)
    # By three: the negatives below a mark and above the one before, the negatives at it, the positives at it.
    pieces = totals(3 * at + tied + positive, 3 * (len(marks) + 1), weights).reshape(len(marks) + 1, 3, -1)
    up, level = pieces[:, 2], pieces[:, 1]
    below = np.cumsum(pieces[:, 0] + level, axis=0)
    won = np.einsum("mr,mr->r", up, below - level / 2, dtype=float)
    return _ratio(won, up.sum(axis=0, dtype=float) * below[-1])


def whole(metric: str, truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One metric of AVERAGED of a label, without the time that `measure` takes for the others."""
    known, classes = truth >= 0, probabilities.shape[1]
    truth, probabilities, weights = truth[known], probabilities[known], weights[known]
    if metric == "auc":
        return _mean(np.stack([auc(truth == c, probabilities[:, c], weights) for c in range(classes)]))
    counts = Tally(truth, probabilities.argmax(axis=1), classes, weights)
    return counts.balanced_accuracy() if metric == "balanced_accuracy" else counts.macro_f1()


def measure(
    label: str, truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> Iterator[Measurement]:
    """Every metric of one label. `truth` holds class indices, -1 for unknown; those cases are left out.

    The macro mean of the AUC is over the classes with both outcomes present, in each replicate its own.
    """
    known = truth >= 0
    if not known.all():
        truth, probabilities, weights = truth[known], probabilities[known], weights[known]
    predicted, n = probabilities.argmax(axis=1), len(truth)
    counts = Tally(truth, predicted, len(classes), weights)
    areas = np.stack([auc(truth == c, probabilities[:, c], weights) for c in range(len(classes))])
    yield Measurement(label, "", "balanced_accuracy", n, counts.balanced_accuracy())
    yield Measurement(label, "", "macro_f1", n, counts.macro_f1())
    yield Measurement(label, "", "auc", n, _mean(areas))
    true, taken = (np.bincount(which, minlength=len(classes)).tolist() for which in (truth, predicted))
    of_classes = zip(classes, areas, counts.recall(), counts.specificity(), counts.precision(), strict=True)
    for c, (name, area, recall, specificity, precision) in enumerate(of_classes):
        yield Measurement(label, name, "auc", n, area)
        yield Measurement(label, name, "recall", true[c], recall)
        yield Measurement(label, name, "specificity", n - true[c], specificity)
        yield Measurement(label, name, "precision", taken[c], precision)


def predicted_shares(
    truth: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    predicted: Mapping[str, np.ndarray],
    groups: np.ndarray,
) -> Iterator[Measurement]:
    """Of each label and class the share of cases that are taken for it, and whether nearly all are taken for one.

    `collapsed` is 1 where one class has more than 1 - 1 / (2 x classes) of them: its balanced accuracy is chance.
    """
    weights = case_weights(groups)
    for label, names in classes.items():
        known = truth[label] >= 0
        taken = totals(predicted[label][known].argmax(axis=1), len(names), weights[known])
        shares, n = taken / taken.sum(axis=0, dtype=float).clip(min=1), int(known.sum())
        for name, share in zip(names, shares, strict=True):
            yield Measurement(label, name, "predicted_share", n, share)
        yield Measurement(label, "", "collapsed", n, (shares.max(axis=0) > 1 - 0.5 / len(names)).astype(float))


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """True class, predicted class and how many cases: the cells of the confusion matrix that are not empty."""
    known = truth >= 0
    pairs = np.stack([truth[known], probabilities[known].argmax(axis=1)], axis=1)
    cells, cases = np.unique(pairs, axis=0, return_counts=True)
    for (true, predicted), count in zip(cells.tolist(), cases.tolist(), strict=True):
        yield true, predicted, count


def mean_over_labels(measures: Iterable[Measurement], n: int, named: Mapping[str, str]) -> Iterator[Measurement]:
    """Whole-label metrics, and those of each label's named class, averaged over the labels.

    Replicate by replicate, since labels share their resamples.
    """
    measures = list(measures)
    for metric in AVERAGED:
        stack = [m.values for m in measures if m.metric == metric and not m.cls]
        # A label without a value of its own (no AUC where the held-out cases show one class) is left out of
        # the value and of every resample alike, since resampling adds no class.
        if stack:
            yield Measurement(MEAN_LABEL, "", metric, n, _mean(np.stack(stack)))
    for metric in OF_A_CLASS:
        stack = [m.values for m in measures if m.metric == metric and m.cls and m.cls == named.get(m.label)]
        if stack:
            yield Measurement(MEAN_LABEL, "", f"named_{metric}", n, _mean(np.stack(stack)))


def summary(values: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """A measure's value and its percentile interval; None where it is not defined."""
    point, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(point):
        return None, None, None
    if len(drawn) == 0:
        return point, None, None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return point, float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, NaN where `below` is zero."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is (without numpy's warning)."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=0), present.sum(axis=0).astype(float))
