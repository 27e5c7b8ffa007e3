"""How strongly a linear probe is held back: chosen by grouped cross-validation among the training cases alone.

All labels are chosen for together, and all labels and folds are fitted together: one matrix product of every case with
the weights of every fit, for each strength from where the one before ended. A choice needs no more digits than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dermsearch.numbers import uniforms

GRID = tuple(10.0**k for k in range(-4, 2))  # the weakest last
USUAL = 0.1  # where nothing can be held out
FOLDS = 3
STEPS = 40  # of L-BFGS for each strength
FAR = np.float32(-1e9)  # the logit of a class that cannot be predicted


@dataclass(frozen=True)
class Held:
    """The regression of one label without one fold: its columns of the weights, and what is asked of which cases."""

    label: int
    columns: slice
    truth: np.ndarray  # class of each case; any where it is not known
    weights: np.ndarray  # of each case in the loss: they sum to 1 over those that are learnt from
    decay: float  # of the weights, where the strength is 1
    held: np.ndarray  # the known cases of the fold, but for classes that no case to learn from has
    absent: np.ndarray  # these classes

    def likely(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of its classes, from the logits of all fits."""
        shifted = np.where(self.absent, FAR, logits[:, self.columns])
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def losses(self, likely: np.ndarray) -> np.ndarray:
        """The cross-entropy of every case."""
        return -np.log(np.maximum(likely[np.arange(len(likely)), self.truth], 1e-30))


def choose(features: np.ndarray, labels: Sequence[np.ndarray], groups: np.ndarray, balanced: bool) -> float:
    """The strength with the least cross-entropy on held-out patients, on the mean over the labels.

    Of labels, -1 is unknown. Where no label has two classes and a case to hold out, it is the usual one.
    """
    from threadpoolctl import threadpool_limits

    known = np.any([truth >= 0 for truth in labels], axis=0)
    with threadpool_limits(1, user_api="blas"):  # one order of sums, whatever the machine
        losses = list(held_out(features[known], [truth[known] for truth in labels], groups[known], balanced))
    return GRID[int(np.argmin(losses))] if losses else USUAL


def held_out(features: np.ndarray, labels: Sequence[np.ndarray], groups: np.ndarray, balanced: bool) -> Iterator[float]:
    """The cross-entropy of strength after strength, until two in a row are worse than the best."""
    from scipy.optimize import minimize

    fits = list(divide(labels, folds(groups), balanced))
    if not fits:
        return
    x = np.hstack([rotated(standard(features)), np.ones((len(features), 1))]).astype(np.float32)
    weights, losses = np.zeros(x.shape[1] * fits[-1].columns.stop), list[float]()
    options = {"maxiter": STEPS, "gtol": 1e-4, "ftol": 1e-6}
    for c in GRID:
        weights = minimize(partial(objective, x, fits, c), weights, jac=True, method="L-BFGS-B", options=options).x
        losses.append(mean_loss(x @ weights.reshape(x.shape[1], -1).astype(np.float32), fits, balanced))
        yield losses[-1]
        if len(losses) > 2 and min(losses[-2:]) > min(losses):
            return


def folds(groups: np.ndarray) -> np.ndarray:
    """Which fold each case is in: all of one patient in the same, and folds of as many patients."""
    names, member = np.unique(groups, return_inverse=True)
    turn = uniforms(0, 0, np.arange(len(names)), "linear/folds", 1)[:, 0].argsort(kind="stable")
    return (turn.argsort() % FOLDS)[member]


def divide(labels: Sequence[np.ndarray], fold: np.ndarray, balanced: bool) -> Iterator[Held]:
    """Every label without every fold, where there are two classes to learn and a case to hold out."""
    start = 0
    for label, truth in enumerate(labels):
        classes = int(truth.max(initial=0)) + 1
        for k in range(FOLDS):
            learnt = (truth >= 0) & (fold != k)
            cases = np.bincount(truth[learnt], minlength=classes)
            held = (truth >= 0) & (fold == k) & (cases[truth] > 0)
            seen = int((cases > 0).sum())
            if seen < 2 or not held.any():
                continue
            weights = learnt / learnt.sum()
            if balanced:
                weights = weights * learnt.sum() / seen / np.maximum(cases, 1)[truth]
            # Of two classes a regression has one column of weights, which are the difference of the two here.
            decay = (2 if seen == 2 else 1) / learnt.sum()
            columns = slice(start, start := start + classes)
            yield Held(label, columns, np.maximum(truth, 0), weights.astype(np.float32), decay, held, cases == 0)


def objective(x: np.ndarray, fits: Sequence[Held], c: float, flat: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss of all fits together with its gradient; `x` ends with a column of ones, which nothing holds back."""
    matrix = flat.reshape(x.shape[1], -1)
    logits, loss, decay = x @ matrix.astype(np.float32), 0.0, np.zeros(matrix.shape[1])
    for fit in fits:
        likely = fit.likely(logits)
        loss += float(fit.weights @ fit.losses(likely))
        likely[np.arange(len(x)), fit.truth] -= 1
        logits[:, fit.columns] = likely * fit.weights[:, None]  # from here on the gradient of the logits
        decay[fit.columns] = fit.decay / c
    gradient = (x.T @ logits).astype(float)
    gradient[:-1] += decay * matrix[:-1]
    return loss + float((decay * matrix[:-1] ** 2).sum()) / 2, gradient.ravel()


def mean_loss(logits: np.ndarray, fits: Sequence[Held], balanced: bool) -> float:
    """The cross-entropy on the cases of all folds, each class of a label weighing the same if balanced."""
    means = []
    for label in sorted({fit.label for fit in fits}):
        parts = [(fit.truth[fit.held], fit.losses(fit.likely(logits))[fit.held]) for fit in fits if fit.label == label]
        truth, losses = map(np.concatenate, zip(*parts, strict=True))
        means.append(np.mean([losses[truth == c].mean() for c in np.unique(truth)] if balanced else losses))
    return float(np.mean(means))


def standard(features: np.ndarray) -> np.ndarray:
    """Every feature with mean 0 and spread 1, in double precision."""
    x = features.astype(float)
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread < 1e-8, 1.0, spread)


def rotated(features: np.ndarray) -> np.ndarray:
    """Fewer columns, where there are more than cases, with the same products of cases: the same to a penalised fit."""
    if features.shape[1] <= features.shape[0]:
        return features
    values, vectors = np.linalg.eigh(features @ features.T)
    return vectors * np.sqrt(np.maximum(values, 0))
