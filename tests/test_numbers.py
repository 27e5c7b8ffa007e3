"""Numbered randomness: uniform, independent in every word, the same for ever."""

import numpy as np
import pytest
from scipy import stats

from dermsearch.numbers import uniforms

UNITS = np.arange(20_000)


def test_depends_on_its_words_alone():
    whole = uniforms(1, 2, UNITS, "view", 7)
    assert whole.shape == (20_000, 7) and whole.dtype == np.float64
    assert whole.min() >= 0 and whole.max() < 1
    order = np.random.default_rng(0).permutation(UNITS)[:100]
    assert np.array_equal(uniforms(1, 2, order, "view", 7), whole[order])
    assert np.array_equal(uniforms(1, 2, UNITS, "view", 3), whole[:, :3])  # more numbers leave the first alone
    for other in (uniforms(0, 2, UNITS, "view", 7), uniforms(1, 3, UNITS, "view", 7), uniforms(1, 2, UNITS, "key", 7)):
        assert not (other == whole).any()


def test_golden():
    """Results of a finished study depend on these numbers."""
    found = uniforms(0, 0, np.array([0, 1]), "view", 2)
    assert found.tolist() == [[0.0766932438344814, 0.5897967371620194], [0.7091438498378783, 0.6543984048713297]]


@pytest.mark.parametrize("seed, epoch", [(0, 0), (7, 1), (2**31 - 1, 99_999), (2**32 - 1, 0)])
def test_uniform(seed, epoch):
    u = uniforms(seed, epoch, UNITS, "view", 6)
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        counts = np.histogram(column, 50, (0, 1))[0]
        assert stats.chisquare(counts).pvalue > 1e-4
    low = (u * 2**32 % 256).astype(int)  # the low bits too
    assert stats.chisquare(np.bincount(low.ravel(), minlength=256)).pvalue > 1e-4


NEIGHBOURS = {
    "units": lambda: (uniforms(0, 0, UNITS, "a", 1)[:-1, 0], uniforms(0, 0, UNITS, "a", 1)[1:, 0]),
    "columns": lambda: tuple(uniforms(0, 0, UNITS, "a", 2).T),
    "epochs": lambda: (uniforms(0, 0, UNITS, "a", 1)[:, 0], uniforms(0, 1, UNITS, "a", 1)[:, 0]),
    "seeds": lambda: (uniforms(0, 0, UNITS, "a", 1)[:, 0], uniforms(1, 0, UNITS, "a", 1)[:, 0]),
    "seed and epoch": lambda: (uniforms(0, 1, UNITS, "a", 1)[:, 0], uniforms(1, 0, UNITS, "a", 1)[:, 0]),
    "uses": lambda: (uniforms(0, 0, UNITS, "query", 1)[:, 0], uniforms(0, 0, UNITS, "key", 1)[:, 0]),
    "unit and column": lambda: (uniforms(0, 0, UNITS, "a", 2)[1:, 0], uniforms(0, 0, UNITS, "a", 2)[:-1, 1]),
}


@pytest.mark.parametrize("what", NEIGHBOURS)
def test_neighbours_are_independent(what):
    a, b = NEIGHBOURS[what]()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))
    table = np.histogram2d(a, b, 8, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-4
    assert stats.kstest((a - b) % 1, "uniform").pvalue > 1e-4


def test_consecutive_epochs_of_one_unit():
    u = np.array([uniforms(3, epoch, np.array([5]), "view", 1)[0, 0] for epoch in range(3000)])
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(len(u))
