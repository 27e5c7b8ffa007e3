"""How uncertain effects are by luck: that of stages, which all that grows from one inherits, and that of its patients.

A stage's score is what its curriculum is worth, and luck: its own, and a share of its parent's. Seeds tell how large
luck is, for curricula are the same in all of them. Which share is handed on they tell less well, so it is bounded
instead: an effect is as uncertain as under the worst of SHARES. One seed tells nothing of any of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from dermsearch.results.explain.observed import Observed

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a stage's luck that may be handed on


@dataclass(frozen=True)
class Luck:
    """Covariances of the curricula's mean scores by luck, one for each share that may be handed on."""

    place: dict[tuple[tuple[str, ...], str], int]  # of a curriculum, by its mark of several roots, in the matrices
    covariances: tuple[np.ndarray, ...]
    freedom: int  # degrees of freedom of all of them

    @classmethod
    def of(cls, curricula: Sequence[Observed]) -> Luck | None:
        """From curricula that have all seeds; None where there are not two of them with two seeds."""
        seeds = sorted({seed for o in curricula for seed in o.values})
        whole = [o for o in curricula if len(o.values) == len(seeds)]
        freedom = (len(whole) - 1) * (len(seeds) - 1)
        if freedom < 1:
            return None
        scores = np.array([[o.values[seed] for seed in seeds] for o in whole])
        apart = scores - scores.mean(axis=1, keepdims=True)
        everyone = [o.tasks for o in curricula]
        # A stage's luck is its seed's own, so what two means share of it is in the seeds that both have.
        had = np.array([[seed in o.values for seed in seeds] for o in curricula], float)
        had /= had.sum(axis=1, keepdims=True)
        shared = had @ had.T
        patients = patients_of(curricula)
        found = []
        for share in SHARES:
            within = np.linalg.inv(inherited([o.tasks for o in whole], share))
            # What a seed does to all curricula alike is no luck of a stage.
            left = apart - (within.sum(axis=0) @ apart) / within.sum()
            variance = float(np.einsum("is,ij,js->", left, within, left)) / freedom
            found.append(variance * inherited(everyone, share) * shared + patients)
        return cls({(o.tasks, o.mark): i for i, o in enumerate(curricula)}, tuple(found), freedom)

    def among(self, rows: Sequence[Observed]) -> list[np.ndarray]:
        """The covariances of some of the curricula."""
        at = [self.place[o.tasks, o.mark] for o in rows]
        return [covariance[at][:, at] for covariance in self.covariances]

    def error(self, rows: Sequence[Observed], loads: np.ndarray) -> float:
        """The standard error of a weighted sum of scores, under the worst share."""
        return max(math.sqrt(max(0.0, float(loads @ v @ loads))) for v in self.among(rows))

    def chance(self, rows: Sequence[Observed], axes: np.ndarray, explained: float) -> float:
        """How often luck alone explains so large a sum of squares along some axes (rows, axes), under the worst share.

        Such a sum has the distribution of a weighted sum of squared normals; one F distribution comes near (Box).
        """
        worst = 0.0
        for v in self.among(rows):
            inner = axes.T @ v @ axes
            usual, spread = float(inner.trace()), float((inner @ inner).trace())
            if usual > 0:
                worst = max(worst, float(fdtrc(usual**2 / spread, self.freedom, explained / usual)))
        return worst


def inherited(curricula: Sequence[tuple[str, ...]], share: float) -> np.ndarray:
    """The covariance of stages' luck, in units of a stage's own: what two have from the stages that they both have."""
    found = np.zeros((len(curricula), len(curricula)))
    for i, a in enumerate(curricula):
        for j, b in enumerate(curricula[: i + 1]):
            common = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            far = len(a) + len(b)
            found[i, j] = found[j, i] = sum(share ** (far - 2 * k) for k in range(1, common + 1))
    return found


def patients_of(curricula: Sequence[Observed]) -> np.ndarray:
    """The covariance of scores over resampled patients; where these were not drawn together, as if each had others."""
    drawn = [o.resampled for o in curricula if o.resampled is not None]
    if len(drawn) == len(curricula) and len({len(values) for values in drawn}) == 1:
        every = np.stack(drawn)
        known = every[:, np.isfinite(every).all(axis=0)]  # a resample may lack a class: no AUC has a value there
        if known.shape[1] > 1:
            return np.atleast_2d(np.cov(known))
    return np.diag([o.error**2 for o in curricula])
