"""Predictions that never look at an image: shares of the training cases, whatever the features are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from evaluate.test_protocols import CLASSES, everything, features, relabel
from sklearn.dummy import DummyClassifier

from dermsearch.evaluate import judge


def test_majority_predicts_the_most_frequent_class_of_the_training_cases() -> None:
    given = relabel(features(), diagnosis=np.repeat([2, 0, -1], [40, 20, 30]))
    found = everything("majority", given)["diagnosis"]
    np.testing.assert_allclose(found, np.tile([1 / 3, 0, 2 / 3], (60, 1)))
    dummy = DummyClassifier().fit(np.zeros(60), np.repeat([2, 0], [40, 20]))
    np.testing.assert_array_equal(found.argmax(axis=1), dummy.predict(np.zeros(60)))
    rows = {(r["label"], r["metric"]): r["value"] for r in judge(given, "majority").rows if not r["class"]}
    assert rows["diagnosis", "auc"] == 0.5 and rows["diagnosis", "balanced_accuracy"] == pytest.approx(1 / 3)


def test_stratified_draws_the_training_shares_by_the_seed() -> None:
    given = relabel(features(heldout=4000), diagnosis=np.repeat([0, 1, 2], [9, 27, 54]))
    drawn = everything("stratified", given, seed=1)
    assert {*np.unique(drawn["diagnosis"])} == {0, 1}
    np.testing.assert_allclose(drawn["diagnosis"].mean(axis=0), [0.1, 0.3, 0.6], atol=0.03)
    other = everything("stratified", given, seed=2)
    assert all((drawn[label] != other[label]).any() for label in CLASSES)
    # Labels are drawn apart from one another: knowing one draw says nothing of the next.
    together = drawn["diagnosis"].T @ drawn["veil"] / 4000
    np.testing.assert_allclose(together, np.outer(*(drawn[k].mean(axis=0) for k in CLASSES)), atol=0.03)


@pytest.mark.parametrize("name", ["majority", "stratified"])
def test_features_are_not_looked_at(name: str) -> None:
    given = features(separation=6.0)
    other = dataclasses.replace(given, train=given.train[::-1] * 7, heldout=given.heldout * 0)
    assert judge(given, name) == judge(other, name)
