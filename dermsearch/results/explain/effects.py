"""Least squares with intervals that hold for a dozen curricula: contrasts of means, and shares of variance.

Intervals are Student's t and, for shares, those of the noncentral F distribution: right for normal noise however few
curricula there are, where resampled curricula lose the other orders of their tasks. What a model leaves over is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import fdtrc, ncfdtr, stdtr, stdtrit

LEVEL = 0.05
DIGITS = 12  # of a score: what is behind them is rounding


@dataclass(frozen=True)
class Effect:
    """One number with its 95 % interval: a difference of scores (a fraction), or a share of their variance."""

    part: str  # task | last | first | order | pair | share | setting
    name: str
    against: str  # what it is compared with
    value: float
    low: float | None  # None where nothing is left over to judge it by
    high: float | None
    curricula: int  # that carry it
    freedom: int  # degrees of freedom of the noise
    p: float | None = None
    adjusted: float | None = None  # p with all comparisons of its table allowed for
    plain: float | None = None  # of a share: as found, not corrected for chance

    @property
    def told(self) -> bool:
        """Is it told from nothing, with all its table's comparisons allowed for?"""
        reaches = self.part != "setting" and self.spans_zero  # a setting's interval is of chance, not of the value
        return self.adjusted is not None and self.adjusted < LEVEL and not reaches

    @property
    def spans_zero(self) -> bool:
        """Does the interval reach 0, or is there none?"""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


@dataclass(frozen=True)
class Estimate:
    """A contrast, its standard error and the degrees of freedom behind that."""

    value: float
    error: float | None
    freedom: int
    loads: np.ndarray = field(compare=False)  # how much of each row's value is in it

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % t-interval."""
        if self.error is None:
            return None, None
        half = float(stdtrit(self.freedom, 1 - LEVEL / 2)) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float | None:
        """How often chance alone gives so much or more."""
        if self.error is None:
            return None
        if self.error == 0:
            return 0.0 if self.value else 1.0
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))


def contrast(design: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]) -> Estimate | None:
    """A weighted sum of a least-squares fit's coefficients; None where the rows cannot tell it."""
    x, y, c = np.asarray(design, float), np.asarray(values, float), np.asarray(weights, float)
    if not len(x):
        return None
    loads = c @ np.linalg.pinv(x.T @ x) @ x.T
    if np.abs(loads @ x - c).max() > 1e-6:
        return None
    freedom = len(x) - int(np.linalg.matrix_rank(x))
    error = round(math.sqrt(left(x, y) / freedom * float(loads @ loads)), DIGITS) if freedom > 0 else None
    return Estimate(round(float(loads @ y), DIGITS), error, freedom, loads)


def share(base: Sequence[Sequence[float]], more: Sequence[Sequence[float]], values: Sequence[float]) -> Effect | None:
    """How much of the variance further columns explain beyond the base, as a share of all variance.

    The value is corrected for what as many columns explain by chance. None where nothing is added or left over.
    """
    y = np.asarray(values, float)
    first = np.column_stack([np.ones(len(y)), np.asarray(base, float).reshape(len(y), -1)])
    total, before = float(((y - y.mean()) ** 2).sum()), left(first, y)
    axes = axes_beyond(base, more)
    added, freedom = axes.shape[1], len(y) - int(np.linalg.matrix_rank(first)) - axes.shape[1]
    if added < 1 or freedom < 1 or total < 1e-16:
        return None
    explained = float(((axes.T @ y) ** 2).sum())
    noise = max(0.0, before - explained) / freedom
    # Where nothing is left over, rounding must not pass for something explained.
    exact = math.inf if explained > 1e-9 * total else 0.0
    f = explained / added / noise if noise > 1e-12 * total else exact
    scale, rows = before / total, len(y)
    return ratio(f, added, freedom, explained / total, rows, lambda n: scale * n / (n + rows))


def axes_beyond(base: Sequence[Sequence[float]], more: Sequence[Sequence[float]]) -> np.ndarray:
    """What further columns add to a constant and the base: orthonormal columns (rows, axes)."""
    rows = len(more)
    inside = span(np.column_stack([np.ones(rows), np.asarray(base, float).reshape(rows, -1)]))
    columns = span(np.asarray(more, float))
    return span(columns - inside @ (inside.T @ columns))


def span(x: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the same space."""
    u, sizes, _ = np.linalg.svd(x, full_matrices=False)
    columns: np.ndarray = u[:, sizes > 1e-9]
    return columns


def ratio(f: float, added: int, freedom: int, plain: float, rows: int, as_share: Callable[[float], float]) -> Effect:
    """An F ratio as a share with its interval; `as_share` turns a noncentrality into a share of all variance."""
    corrected, p, ends = plain, 0.0, (plain, plain)
    if not math.isinf(f):
        corrected = plain - plain / f if f > 0 else 0.0
        p = float(fdtrc(added, freedom, f))
        low, high = noncentral(f, added, freedom)
        ends = as_share(low), min(1.0, as_share(high))
    return Effect("share", "", "", max(0.0, corrected), *ends, rows, freedom, p, plain=plain)


def noncentral(f: float, added: int, freedom: int) -> tuple[float, float]:
    """The noncentralities between which an F ratio is not surprising, at 2.5 % on either side."""

    def solve(level: float) -> float:
        if ncfdtr(added, freedom, 0.0, f) <= level:
            return 0.0
        low, high = 0.0, 1.0
        while ncfdtr(added, freedom, high, f) > level and high < 1e9:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if ncfdtr(added, freedom, middle, f) > level else (low, middle)
        return high

    return solve(1 - LEVEL / 2), solve(LEVEL / 2)


def left(design: np.ndarray, values: np.ndarray) -> float:
    """The sum of squares that a fit leaves over."""
    beta = np.linalg.lstsq(design, values, rcond=None)[0]
    return float(((values - design @ beta) ** 2).sum())


def holm(effects: Iterable[Effect]) -> list[Effect]:
    """The effects of one table with p-values that allow for there being so many."""
    effects = list(effects)
    ranked = sorted((e.p, i) for i, e in enumerate(effects) if e.p is not None)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for place, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - place)))
        adjusted[i] = highest
    return [replace(e, adjusted=adjusted.get(i)) for i, e in enumerate(effects)]
