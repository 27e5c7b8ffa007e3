"""Few labels: enough of every class of every label and no more, views in views, patients before one patient twice."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from pace import slowness

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import draw_labels
from dermsearch.data.store.few import low_label

ALONE = np.arange(10_000)  # groups: every case is somebody else's


def checklist(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The eight labels of the built-in cases, as often as derm7pt's."""
    drawn = [draw_labels(seed, i) for i in range(n)]
    return {name: np.array([labels[name] for labels in drawn]) for name in SEVEN_POINT}


def counts(labels: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, list[int]]:
    return {
        name: np.bincount(known[rows][known[rows] >= 0], minlength=known.max() + 1).tolist()
        for name, known in labels.items()
    }


def test_one_label_has_exactly_so_many_of_each_class_and_no_unknown():
    rng = np.random.default_rng(0)
    labels = {"diagnosis": rng.choice([-1, 0, 1, 2], 300, p=[0.2, 0.6, 0.19, 0.01])}
    whole = counts(labels, np.arange(300))["diagnosis"]
    assert counts(labels, low_label("10", labels, ALONE[:300]))["diagnosis"] == [10, 10, min(10, whole[2])]
    share = counts(labels, low_label("10%", labels, ALONE[:300]))["diagnosis"]
    assert share == [-(-n // 10) for n in whole]  # rounded up: the rarest class is there too
    assert (labels["diagnosis"][low_label("100%", labels, ALONE[:300])] >= 0).all()
    assert len(low_label("100%", labels, ALONE[:300])) == sum(whole)


@pytest.mark.parametrize("draw", [(0, 0), (0, 1), (7, 3)])
def test_every_class_of_every_label_has_its_number(draw):
    """By the first label alone, a draw of five of each of 413 cases had 22 without a veil, and 3 with one."""
    labels = checklist(413)
    whole = counts(labels, np.arange(413))
    before = 0
    for number in (1, 5, 20, 100):
        rows = low_label(str(number), labels, ALONE[:413], draw)
        for name, found in counts(labels, rows).items():
            assert all(n >= min(number, most) for n, most in zip(found, whole[name], strict=True)), (name, found)
        assert before < len(rows) <= 413
        before = len(rows)
    assert len(low_label("5", labels, ALONE[:413], draw)) < 40  # 24 classes of five would be 120 if none helped another
    assert len(low_label("20", labels, ALONE[:413], draw)) < 140


def test_no_case_is_there_that_no_class_needed():
    """A second label that says the same, or that is known of nobody, adds none."""
    kinds = np.random.default_rng(0).choice(3, 400, p=[0.7, 0.2, 0.1])
    alone = low_label("20", {"a": kinds}, ALONE[:400])
    both = {"a": kinds, "b": 2 - kinds, "c": np.full(400, -1)}
    assert np.array_equal(low_label("20", both, ALONE[:400]), alone) and len(alone) == 60
    # The rare class of the second label asks first, and what it brings counts for the first.
    second = np.where(np.arange(400) < 20, 1, 0)
    rows = low_label("20", {"a": kinds, "b": second}, ALONE[:400])
    assert second[rows].sum() == 20 and counts({"a": kinds}, rows)["a"] == [20, 20, 20]


def test_a_share_of_all_labels_is_near_that_share_of_each_class():
    labels = checklist(2000)
    whole = counts(labels, np.arange(2000))
    for percent in (10, 30, 70):
        rows = low_label(f"{percent}%", labels, ALONE[:2000])
        assert percent * 20 <= len(rows) <= 1.1 * percent * 20
        for name, found in counts(labels, rows).items():
            for n, most in zip(found, whole[name], strict=True):
                assert percent * most / 100 <= n <= 1.35 * percent * most / 100 + 5, (name, n, most)


@pytest.mark.parametrize("draw", [(0, 0), (3, 1)])
def test_a_larger_view_of_a_draw_holds_the_smaller(draw):
    labels, groups = checklist(300), np.random.default_rng(1).integers(0, 90, 300)
    for parts in ([str(n) for n in range(1, 40)], [f"{p}%" for p in (0.5, 1, 2, 5, 10, 33, 50, 99, 100)]):
        views = [set(low_label(part, labels, groups, draw).tolist()) for part in parts]
        assert all(small <= large for small, large in pairwise(views))
        assert len(views[0]) < len(views[-1])


def test_draws_differ_by_seed_and_number_and_are_the_same_again():
    labels = checklist(300)
    views = {draw: tuple(low_label("5", labels, ALONE[:300], draw)) for draw in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    assert len(set(views.values())) == 4
    assert all(tuple(low_label("5", labels, ALONE[:300], draw)) == view for draw, view in views.items())


@pytest.mark.parametrize("draw", [(0, number) for number in range(5)])
def test_many_patients_come_before_one_patient_twice(draw):
    """Of a class nobody is shown a second time before everybody was once; 20 people have most of the cases."""
    rng = np.random.default_rng(2)
    groups = np.concatenate([np.repeat(np.arange(20), 10), np.arange(20, 60)])
    kinds = rng.choice(2, len(groups), p=[0.6, 0.4])
    for number in (5, 20, 40, 60):
        rows = low_label(str(number), {"a": kinds}, groups, draw)
        for kind in (0, 1):
            there = Counter(groups[kinds == kind].tolist())
            shown = Counter(groups[rows[kinds[rows] == kind]].tolist())
            most = max(shown.values())
            assert all(shown[who] >= most - 1 for who in there if shown[who] < there[who])
            assert len(shown) == min(number, len(there))


def test_whom_another_class_shows_comes_later():
    """Everybody has a case of each class, and ten of each are wanted of twenty people: twenty people are shown."""
    kinds, groups = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    for number in range(5):
        rows = low_label("10", {"a": kinds}, groups, (0, number))
        assert len(set(groups[rows].tolist())) == len(rows) == 20


def test_a_case_may_be_taken_for_another_class_and_does_not_come_again():
    labels = {"a": np.array([0, 0, 0, 0]), "b": np.array([0, 0, 1, 1])}
    assert low_label("4", labels, np.zeros(4, int)).tolist() == [0, 1, 2, 3]
    assert low_label("9", {}, np.zeros(4, int)).tolist() == []


@pytest.mark.alone
def test_many_cases_of_many_labels_take_no_time():
    rng = np.random.default_rng(0)
    labels = {f"label{i}": rng.choice(3, 25_000, p=[0.7, 0.25, 0.05]) for i in range(8)}
    groups = rng.integers(0, 19_000, 25_000)
    for part in ("20", "10%"):
        took = []
        for _ in range(3):  # the best of three, by this thread alone: others of the process may be at work
            started = time.thread_time()
            low_label(part, labels, groups)
            took.append(time.thread_time() - started)
        assert min(took) < slowness()
