"""Numbers of made beside real ones, against values worked out by hand or by other code."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx as near
from sklearn.metrics.pairwise import polynomial_kernel

from dermsearch.generate.quality import distances, kid, manifolds, matched, mean, reach
from dermsearch.metrics import summary

X = np.array([(0.0, 0), (1, 0), (0, 2)])
Y = np.array([(1.0, 1), (2, 0), (0, 1)])
CORNERS = np.array([(0.0, 0), (0, 1), (1, 0), (1, 1)])
MADE = np.array([(0.1, 0), (0.9, 0), (5, 5), (0.5, 0.5)])


@pytest.mark.parametrize(("x", "y", "value"), [(X, Y, -2.0694444444), (X, X, -6.3055555556)])
def test_kid(x: np.ndarray, y: np.ndarray, value: float) -> None:
    assert kid(x, y)[0] == near(value, abs=1e-9)


def test_kid_is_that_of_the_polynomial_kernel() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(0.3, 1, size=(40, 6))
    within = [polynomial_kernel(each, degree=3, coef0=1) for each in (x, y)]
    apart = sum((k.sum() - np.trace(k)) / (40 * 39) for k in within)
    assert kid(x, y)[0] == near(apart - 2 * polynomial_kernel(x, y, degree=3, coef0=1).mean(), abs=1e-9)


def test_kid_has_no_bias_and_its_interval_holds_the_truth() -> None:
    rng, found, held = np.random.default_rng(1), [], 0
    for _ in range(40):
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
        values = kid(x, y)
        value, low, high = summary(values)
        found.append(value)
        held += low <= 0 <= high
    assert abs(np.mean(found)) < 2 * np.std(found) / 40**0.5 and held >= 34
    apart = summary(kid(rng.normal(size=(60, 4)), rng.normal(1.5, 1, size=(60, 4))))
    assert apart[1] > 0


def test_resamples_draw_whole_groups() -> None:
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(10, 3)), 6, 0), rng.normal(size=(60, 3))
    alone, together = (kid(x, y, groups)[1:].std() for groups in (None, np.arange(60) // 6))
    assert together > 1.5 * alone


@pytest.mark.parametrize(
    ("k", "precision", "recall", "density", "coverage"), [(1, 0.75, 0.75, 2.0, 1.0), (2, 0.75, 1.0, 1.0, 1.0)]
)
def test_precision_and_recall(k: int, precision: float, recall: float, density: float, coverage: float) -> None:
    found = {what: each.mean() for what, each in manifolds(CORNERS, MADE, k).items()}
    assert found == near({"precision": precision, "recall": recall, "density": density, "coverage": coverage})


def test_distances_and_reach() -> None:
    assert distances(X, Y)[0] == near([2**0.5, 2, 1])
    assert reach(CORNERS, 1).tolist() == [1] * 4 and reach(CORNERS, 3) == near([2**0.5] * 4)


def test_means_are_over_groups() -> None:
    assert mean(np.array([1.0, 0, 1, 1]))[0] == 0.75
    assert mean(np.ones(4), np.zeros(4)).tolist() == [1.0]  # one patient: no interval


def test_made_cases_are_taken_in_the_shares_of_the_real() -> None:
    made, real = np.repeat([0, 1, 2], 30), np.array([0] * 10 + [1] * 30 + [-1] * 5)
    rows = matched(made, real, 1000, 0)
    assert np.bincount(made[rows]).tolist() == [10, 30] and len(set(rows)) == 40
    assert len(matched(made, real, 20, 0)) == 20
