"""How much of the best score on validation is luck: what choosing the best of many adds to its score.

Of N curricula judged on the same patients, the best one was also the luckiest. How lucky is estimated by choosing
again and again on resampled patients, around scores that are drawn to their mean as far as the patients' noise explains
how they differ: without that step, equals that noise has set apart would count as truly apart, and luck as merit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 20  # of the test split's error beside each resample


@dataclass(frozen=True)
class Optimism:
    """Validation minus truth of the best, in the metric's own unit."""

    value: float
    low: float  # within which validation minus a test score lies, 95 % of the time
    high: float
    curricula: int  # that there were to choose from


def optimism(scores: np.ndarray, test_error: float = 0.0, seed: int = 0) -> Optimism:
    """From scores (curricula, 1 + resamples): those on all patients first, then on the same resamples of them for all.

    `test_error` is the standard error of the chosen one's score on the test split.
    """
    score, noise = scores[:, 0], scores[:, 1:] - scores[:, :1]
    noise = noise - noise.mean(1, keepdims=True)
    truth = score.mean() + shrinkage(score, noise) * (score - score.mean())
    best = (truth[:, None] + noise).argmax(0)
    luck = noise[best, np.arange(noise.shape[1])]
    # What the test split adds is not tied to who was chosen. Drawn once for each, it would leave the ends to chance.
    seen = luck - np.random.default_rng(seed).normal(0, test_error, (DRAWS, len(luck)))
    low, high = np.quantile(seen, [0.025, 0.975])
    return Optimism(float(luck.mean()), float(low), float(high), len(scores))


def shrinkage(score: np.ndarray, noise: np.ndarray) -> float:
    """Share of the variance between scores that the noise does not explain: 0 where all may be equal, 1 without noise.

    Noise that all share moves nobody ahead, so it is taken around its mean over the curricula.
    """
    if len(score) < 2:
        return 0.0
    apart = score.var(ddof=1)
    own = (noise - noise.mean(0)).var(1).sum() / (len(score) - 1)
    return float(max(0.0, 1 - own / apart)) if apart > 0 else 0.0
