"""How uncertain an effect is by luck: where curricula lack seeds, have several roots, or resamples lack a class."""

import itertools

import numpy as np
import pytest

from dermsearch.results.explain.luck import SHARES, Luck, inherited
from dermsearch.results.explain.observed import Observed

CURRICULA = [tasks for length in (1, 2) for tasks in itertools.permutations("abcd", length)]
ALL, ONE = [("", seed) for seed in range(4)], [("", 0)]


def scores(seeds, drawn=None):
    rng = np.random.default_rng(0)
    return [Observed(tasks, {seed: rng.normal() for seed in seeds(tasks)}, "", drawn) for tasks in CURRICULA]


def test_a_child_of_one_seed_has_a_quarter_of_its_parents_luck_in_four() -> None:
    curricula = scores(lambda tasks: ONE if tasks == ("a", "b") else ALL)
    found = Luck.of(curricula)
    parent, child = CURRICULA.index(("a",)), CURRICULA.index(("a", "b"))
    for share, covariance in zip(SHARES, found.covariances, strict=True):
        own = inherited(CURRICULA, share)
        variance = 4 * covariance[parent, parent]
        assert covariance[child, child] == pytest.approx(variance * own[child, child])
        assert covariance[parent, child] == pytest.approx(variance * own[parent, child] / 4)


def test_the_same_tasks_on_two_roots_are_two_stages() -> None:
    """Their order rises on one root and falls on the other, so they stand in two rows."""
    roots = [(root, seed) for root in "xy" for seed in range(3)]
    rng = np.random.default_rng(1)
    curricula = [Observed((task,), {seed: rng.normal() for seed in roots}) for task in "abc"]
    for root, mark in (("x", "C"), ("y", "AC")):
        values = {seed: rng.normal() for seed in roots if seed[0] == root}
        curricula.append(Observed(("a", "b"), values, mark))
    found = Luck.of(curricula)
    apart = np.array([0, 0, 0, 1.0, -1.0])
    assert found.error(curricula, apart) > found.error(curricula, np.array([0, 0, 0, 1.0, 0]))


def test_a_resample_without_a_class_leaves_luck_as_it_is() -> None:
    drawn = np.random.default_rng(2).normal(size=200)
    holed = np.r_[drawn, np.nan]  # of a binary label with few positives, whose AUC it has no value for
    apart = np.eye(len(CURRICULA))[0]
    made = [scores(lambda _: ALL, values) for values in (drawn, holed)]
    whole, found = (Luck.of(curricula).error(curricula, apart) for curricula in made)
    assert found == pytest.approx(whole) and found > 0
