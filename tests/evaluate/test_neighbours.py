"""How many neighbours a kNN asks, where a study leaves it to the training cases."""

import dataclasses

import numpy as np
import pytest

from dermsearch.evaluate.base import Features, judge
from dermsearch.evaluate.knn import AMONG, Knn, KnnConfig

CHOOSE = KnnConfig(k=None, temperature=10)  # votes that hardly fall with distance: their number decides


def cases(spread: float, each: int, kinds: int, seed: int = 0) -> Features:
    """Two classes in so many directions each: of much spread many neighbours are right, of many directions few."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(2 * kinds, 16))
    truth = np.repeat(np.arange(2 * kinds), each)
    x, y = ((middle[truth] + spread * rng.normal(size=(len(truth), 16))).astype(np.float32) for _ in range(2))
    labels, groups = {"veil": truth % 2}, np.arange(len(truth))
    return Features(x, y, labels, labels, {"veil": ("absent", "present")}, groups, "val", train_groups=groups)


@pytest.mark.parametrize(("spread", "each", "kinds", "most"), [(0.1, 4, 30, 3), (3.0, 150, 1, 100)])
def test_as_many_as_serve(spread: float, each: int, kinds: int, most: int) -> None:
    chosen = Knn().chosen(cases(spread, each, kinds), CHOOSE)
    assert chosen <= 3 if most == 3 else chosen >= 20


def test_a_patient_never_votes_for_himself() -> None:
    given = cases(3.0, 150, 1)
    twice = np.repeat(np.arange(len(given.train)), 2)
    double = dataclasses.replace(
        given,
        train=given.train[twice],
        train_labels={"veil": given.train_labels["veil"][twice]},
        train_groups=twice,
    )
    assert Knn().chosen(double, CHOOSE) >= 20, "else each case's twin is the one right neighbour"
    assert Knn().chosen(dataclasses.replace(double, train_groups=None), CHOOSE) == 1


def test_held_out_cases_have_no_say() -> None:
    given = cases(1.0, 20, 4)
    other = dataclasses.replace(
        given, heldout=-given.heldout, heldout_labels={"veil": 1 - given.heldout_labels["veil"]}
    )
    assert Knn().chosen(given, CHOOSE) == Knn().chosen(other, CHOOSE)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_of_few_cases_one_is_asked(count: int) -> None:
    given = cases(0.1, 1, 8)
    labels = {"veil": given.train_labels["veil"][:count]}
    few = dataclasses.replace(given, train=given.train[:count], train_labels=labels, train_groups=np.arange(count))
    assert Knn().chosen(few, CHOOSE) in AMONG
    assert len(judge(few, "knn", {"k": None}).rows)


def test_a_number_that_is_given_is_taken() -> None:
    given = cases(3.0, 150, 1)
    assert judge(given, "knn", {"k": 1}).rows != judge(given, "knn", {"k": None}).rows
    assert KnnConfig().model_dump() == {"k": 20, "temperature": 0.07, "balanced": True}, "else keys would change"
