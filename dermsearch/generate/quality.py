"""What is told of made images beside real ones, from features of both: pure numbers, with intervals.

KID is the squared MMD with the kernel (x.y / d + 1)^3 without bias (Binkowski et al. 2018), so it may be below zero.
It depends on the scale of features: standardise them by the real ones first. Precision and recall are those of
Kynkaanniemi et al. (2019): the share of made images within the reach of a real one's k-th neighbour, and the other way
round; density and coverage (Naeem et al. 2020) ask within how many, and how many real ones have one within reach.
"""

from __future__ import annotations

import numpy as np

from dermsearch.metrics import case_weights

Values = np.ndarray  # the number itself, then in every resample: what `metrics.summary` makes an interval of


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """KID's kernel between rows, in double precision."""
    return (x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** 3


def kid(x: np.ndarray, y: np.ndarray, of_x: np.ndarray | None = None, of_y: np.ndarray | None = None) -> Values:
    """KID, and in resamples of whole groups, such as patients; of rows where none are given.

    An image drawn twice is no pair of two: else every resample would look as if it held copies.
    """
    wx, wy = (
        case_weights(np.arange(len(z)) if groups is None else groups, seed=seed).astype(np.float64)
        for seed, (z, groups) in enumerate(((x, of_x), (y, of_y)))
    )
    most = max(wx.shape[1], wy.shape[1])
    wx, wy = (np.broadcast_to(w, (len(w), most)) if w.shape[1] == 1 else w for w in (wx, wy))
    between = (wx * (polynomial(x, y) @ wy)).sum(0) / (wx.sum(0) * wy.sum(0))
    return np.asarray(_within(x, wx) + _within(y, wy) - 2 * between)


def _within(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the kernel over pairs of different rows, by weight."""
    kernel = polynomial(x, x)
    own = (weights**2 * kernel.diagonal()[:, None]).sum(0)
    pairs = weights.sum(0) ** 2 - (weights**2).sum(0)  # none where a resample holds one row alone
    return np.divide(
        (weights * (kernel @ weights)).sum(0) - own, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0
    )


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m) Euclidean distances in double precision."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0))


def reach(x: np.ndarray, k: int) -> np.ndarray:
    """Of each row, how far its k-th nearest other one is."""
    between = distances(x, x)
    np.fill_diagonal(between, np.inf)
    return np.partition(between, k - 1, axis=1)[:, k - 1]


def manifolds(real: np.ndarray, made: np.ndarray, k: int = 5) -> dict[str, np.ndarray]:
    """Image by image what precision, recall, density and coverage are the means of."""
    between = distances(real, made)
    inside = between <= reach(real, k)[:, None]
    return {
        "precision": inside.any(0).astype(float),
        "recall": (between <= reach(made, k)[None, :]).any(1).astype(float),
        "density": inside.sum(0) / k,
        "coverage": inside.any(1).astype(float),
    }


def mean(each: np.ndarray, groups: np.ndarray | None = None) -> Values:
    """The mean, and in resamples of whole groups."""
    weights = case_weights(np.arange(len(each)) if groups is None else groups).astype(np.float64)
    return np.asarray((each[:, None] * weights).sum(0) / weights.sum(0))


def matched(made: np.ndarray, real: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Places of made cases, at most so many, whose classes are as frequent as those of the real ones."""
    count = int(max(made.max(initial=-1), real.max(initial=-1))) + 1
    share = np.bincount(real[real >= 0], minlength=count) / max(1, (real >= 0).sum())
    there = np.bincount(made[made >= 0], minlength=count)
    limits = [there[c] / share[c] for c in range(count) if share[c] > 0]
    total = min([most, *limits])
    rng, found = np.random.default_rng(seed), []
    for c in range(count):
        found.append(rng.permutation(np.flatnonzero(made == c))[: int(total * share[c] + 1e-9)])
    return np.sort(np.concatenate(found)) if found else np.empty(0, int)
