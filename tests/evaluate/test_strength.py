"""How strongly a linear probe is held back: chosen among training cases, patient by patient, for all labels at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from dermsearch.evaluate import Features, Given, configure, judge, strength
from dermsearch.evaluate.linear import Linear

CLASSES = {"diagnosis": ("a", "b", "c"), "veil": ("absent", "present")}


def problem(separation: float, width: int, cases: int = 120, heldout: int = 600, seed: int = 0) -> Features:
    """Two labels of unequal classes, each told by a direction of its own among noise; two cases to a patient."""
    rng = np.random.default_rng(seed)
    sides = []
    for count in (cases, heldout):
        shares = {"diagnosis": [0.6, 0.25, 0.15], "veil": [0.7, 0.3]}
        labels = {name: rng.choice(len(p), size=count, p=p) for name, p in shares.items()}
        x = rng.normal(size=(count, width))
        x[:, :3] += separation * np.eye(3)[labels["diagnosis"]]
        x[:, 3:5] += separation * np.eye(2)[labels["veil"]]
        sides.append((x.astype(np.float32), labels))
    (x, labels), (y, truth) = sides
    return Features(x, y, labels, truth, CLASSES, np.arange(heldout), "val", train_groups=np.arange(cases) // 2)


WEAK_SIGNAL, STRONG_SIGNAL = problem(0.9, 200), problem(4.0, 6)


def parts(given: Features) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    assert given.train_groups is not None
    return given.train, [given.train_labels[label] for label in CLASSES], given.train_groups


def chosen(given: Features, balanced: bool = True) -> float:
    return strength.choose(*parts(given), balanced)


def by_scikit_learn(given: Features, c: float, balanced: bool) -> float:
    """Its loss on held-out patients, one label and fold after the other."""
    features, labels, groups = parts(given)
    x, fold, means = strength.standard(features), strength.folds(groups), []
    for truth in labels:
        held, losses = [], []
        for k in range(strength.FOLDS):
            learnt, asked = (truth >= 0) & (fold != k), (truth >= 0) & (fold == k)
            model = LogisticRegression(C=c, class_weight="balanced" if balanced else None, max_iter=5000, tol=1e-8)
            model.fit(x[learnt], truth[learnt])
            held.append(truth[asked])
            losses.append(-np.log(model.predict_proba(x[asked])[np.arange(asked.sum()), truth[asked]]))
        every, loss = np.concatenate(held), np.concatenate(losses)
        means.append(np.mean([loss[every == kind].mean() for kind in np.unique(every)]) if balanced else loss.mean())
    return float(np.mean(means))


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("given", [WEAK_SIGNAL, problem(1.0, 10)], ids=["more columns than cases", "fewer"])
def test_its_losses_are_those_of_fit_after_fit(given: Features, balanced: bool) -> None:
    veil = np.where(np.arange(120) % 5, given.train_labels["veil"], -1)
    given = dataclasses.replace(given, train_labels={**given.train_labels, "veil": veil})
    losses = list(strength.held_out(*parts(given), balanced))
    assert len(losses) >= 4
    expected = [by_scikit_learn(given, c, balanced) for c in strength.GRID[: len(losses)]]
    assert losses == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("given", "strong"), [(WEAK_SIGNAL, True), (STRONG_SIGNAL, False)], ids=["weak", "strong"])
def test_the_best_on_held_out_patients_is_chosen(given: Features, strong: bool) -> None:
    losses = {c: by_scikit_learn(given, c, True) for c in strength.GRID}
    best = min(losses, key=losses.__getitem__)
    assert chosen(given) == best and (best <= 0.01) == strong and (best >= 1) != strong
    assert abs(losses[10.0] - losses[0.01]) > 0.1


def test_one_choice_for_all_labels() -> None:
    """One of them alone would be held back less."""
    weak, strong = WEAK_SIGNAL, STRONG_SIGNAL
    x = np.hstack([weak.train, strong.train])
    labels = [weak.train_labels["diagnosis"], strong.train_labels["veil"]]
    alone = [strength.choose(x, [truth], np.arange(len(x)), True) for truth in labels]
    both = strength.choose(x, labels, np.arange(len(x)), True)
    assert alone[0] < alone[1] and alone[0] <= both <= alone[1]
    told = dict(zip(CLASSES, labels, strict=True))
    given = Features(x.astype(np.float32), x[:9].astype(np.float32), told, {}, CLASSES, np.arange(9), "val")
    expected = Linear().predict(Given(given), configure("linear", {"c": both}), 0)
    for order in (list(CLASSES), list(CLASSES)[::-1]):
        ordered = dataclasses.replace(given, classes={label: CLASSES[label] for label in order})
        predicted = Linear().predict(Given(ordered), configure("linear"), 0)
        assert all(np.array_equal(predicted[label], expected[label]) for label in CLASSES)


def test_no_more_columns_than_cases() -> None:
    features = np.random.default_rng(0).normal(size=(10, 50))
    fewer = strength.rotated(features)
    assert fewer.shape == (10, 10) and strength.rotated(features.T).shape == (50, 10)
    np.testing.assert_allclose(fewer @ fewer.T, features @ features.T, atol=1e-9)


def remembered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that tell the patient and nothing else: one case seen gives away the label of the patient's others."""
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.permutation(60), 4)
    truth, own = rng.integers(0, 2, size=60)[groups], rng.normal(size=(60, 40))[groups]
    return (own + 0.1 * rng.normal(size=own.shape)).astype(np.float32), truth, groups


def test_a_patient_is_never_divided() -> None:
    features, truth, groups = remembered()
    assert all(len(set(strength.folds(groups)[groups == group])) == 1 for group in range(60))
    assert np.bincount(strength.folds(groups)).tolist() == [80, 80, 80]
    assert strength.choose(features, [truth], groups, True) <= 0.001
    assert strength.choose(features, [truth], np.arange(240), True) >= 1


def test_patients_are_told_by_the_probe() -> None:
    features, truth, groups = remembered()
    label = {"veil": CLASSES["veil"]}
    given = Features(features, features[:9], {"veil": truth}, {"veil": truth[:9]}, label, np.arange(9), "val")
    told = dataclasses.replace(given, train_groups=groups)
    for side, patients in ((given, np.arange(240)), (told, groups)):
        c = strength.choose(features, [truth], patients, True)
        found, fixed = (Linear().predict(Given(side), configure("linear", s), 0)["veil"] for s in ({}, {"c": c}))
        np.testing.assert_array_equal(found, fixed)


def test_a_fixed_strength_is_a_plain_fit() -> None:
    given = WEAK_SIGNAL
    x, y = given.train.astype(float), given.heldout.astype(float)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    probabilities = Linear().predict(Given(given), configure("linear", {"c": 0.3}), 0)
    for label, truth in given.train_labels.items():
        model = LogisticRegression(C=0.3, class_weight="balanced", max_iter=500)
        with threadpool_limits(1, user_api="blas"):
            plain = model.fit((x - mean) / spread, truth).predict_proba((y - mean) / spread)
        np.testing.assert_array_equal(probabilities[label], plain)


@pytest.mark.parametrize("given", [WEAK_SIGNAL, STRONG_SIGNAL], ids=["weak", "strong"])
def test_the_choice_is_what_is_fitted(given: Features) -> None:
    assert judge(given, "linear") == judge(given, "linear", {"c": chosen(given)})
    assert judge(given, "linear") != judge(given, "linear", {"c": 0.1})


@pytest.mark.parametrize("each", [1, 2, 5])
def test_few_labels(each: int) -> None:
    """So many of every class, of patients of their own, and one class that a single patient has."""
    given = problem(2.0, 30, cases=3 * each)
    kinds = np.repeat(np.arange(3), each)
    labels = {"diagnosis": kinds, "veil": np.where(kinds == 2, -1, kinds)}
    groups = np.where(kinds == 1, 99, np.arange(3 * each))
    given = dataclasses.replace(given, train_labels=labels, train_groups=groups)
    assert chosen(given) == chosen(given) in strength.GRID
    assert judge(given, "linear") == judge(given, "linear")


@pytest.mark.parametrize(
    ("truth", "groups"),
    [
        ([0, 0, 1, 1], [5, 5, 5, 5]),  # one patient
        ([0, 0, 0, 0], [0, 1, 2, 3]),  # one class
        ([0, 0, 1, 1], [0, 0, 1, 1]),  # a class to each patient
        ([-1, -1, -1, -1], [0, 1, 2, 3]),
        ([], []),
    ],
)
def test_where_nothing_can_be_held_out_it_is_the_usual_strength(truth: list[int], groups: list[int]) -> None:
    features = np.random.default_rng(0).normal(size=(len(truth), 6))
    label = np.array(truth, dtype=int)
    assert strength.choose(features, [label], np.array(groups, dtype=int), True) == strength.USUAL


def test_cases_without_a_label_do_not_count() -> None:
    features, labels, groups = parts(WEAK_SIGNAL)
    expected = list(strength.held_out(features, labels, groups, True))
    more = np.vstack([features, np.full((9, features.shape[1]), 1e3)])
    unknown = [np.append(truth, np.full(9, -1)) for truth in labels]
    assert strength.choose(more, unknown, np.append(groups, np.arange(9)), True) == chosen(WEAK_SIGNAL)
    assert strength.GRID[int(np.argmin(expected))] == chosen(WEAK_SIGNAL)


def test_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, threads = strength.rotated, []

    def watched(features: np.ndarray) -> np.ndarray:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return plain(features)

    monkeypatch.setattr(strength, "rotated", watched)
    predictions = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            predictions.append(Linear().predict(Given(WEAK_SIGNAL), configure("linear"), 0))
    assert threads and set(threads) == {1}
    for label in CLASSES:
        np.testing.assert_array_equal(predictions[0][label], predictions[1][label])
