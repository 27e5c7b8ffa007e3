"""A Bayesian linear model with unknown noise, and what a candidate promises by it."""

from __future__ import annotations

import math

import numpy as np

NOISE = 0.25  # the variance of a residual before anything is known, in variances of the scores
BELIEF = 2.0  # observations that NOISE counts for


class Surrogate:
    """y = x w + noise. A weight may lie as far from its prior mean as a value from the line: one scale for all."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, mean: np.ndarray, also: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """Fit rows x with values y; rows `also` will be known by and by, so they are uncertain no more.

        A row counts as one observation, or as many as `counts` says.
        """
        counts = np.ones(len(y)) if counts is None else counts
        x, y = x * np.sqrt(counts)[:, None], y * np.sqrt(counts)
        residual = y - x @ mean
        shift = x.T @ solve(x @ x.T, residual) if len(x) < len(mean) else solve(x.T @ x, x.T @ residual)
        self.weights = mean + shift
        left = NOISE * BELIEF + residual @ residual - (x.T @ residual) @ shift
        n, left = float(counts.sum()), max(float(left), 1e-12)
        self.noise = left / (BELIEF + n)
        small = x @ x.T if len(x) < len(mean) else x.T @ x
        self.evidence = BELIEF / 2 * math.log(NOISE * BELIEF) - (BELIEF + n) / 2 * math.log(left)
        self.evidence += math.lgamma((BELIEF + n) / 2) - math.lgamma(BELIEF / 2) - n / 2 * math.log(math.pi)
        self.evidence -= float(np.linalg.slogdet(np.eye(len(small)) + small)[1]) / 2
        self.rows = np.vstack([x, also])
        self.few = len(self.rows) < len(mean)  # then the smaller matrix is that between rows, not between weights
        gram = self.rows @ self.rows.T if self.few else self.rows.T @ self.rows
        self.inverse = solve(gram, np.eye(len(gram)))

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of what would be observed."""
        seen = x @ self.rows.T if self.few else x
        explained = np.einsum("ij,ij->i", seen @ self.inverse, seen)
        spread = np.einsum("ij,ij->i", x, x) - explained if self.few else explained
        return x @ self.weights, self.noise * (1 + np.maximum(spread, 0))


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve (1 + matrix) z = right."""
    return np.linalg.solve(np.eye(len(matrix)) + matrix, right)


def expected_improvement(mean: np.ndarray, variance: np.ndarray, best: float) -> np.ndarray:
    """By how much a normal variable is expected to exceed the best so far."""
    spread = np.sqrt(variance)
    z = np.clip((mean - best) / spread, -30, 30)
    below = 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2)))
    return spread * np.maximum(z * below + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), 1e-300)
