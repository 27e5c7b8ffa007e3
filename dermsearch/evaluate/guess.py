"""Predictions that never look at an image: what other evaluators' numbers have to beat."""

from __future__ import annotations

import numpy as np

from dermsearch.evaluate.base import UNKNOWN, Features, Given, Settings
from dermsearch.nature import Nature
from dermsearch.numbers import uniforms

BLIND = Nature(frozenset(), objective=False)


class Majority:
    """The same for every case: each class as probable as it is frequent among the training cases."""

    name = "majority"
    version = 2
    nature = BLIND
    Config = Settings

    def predict(self, given: Given, config: Settings, seed: int) -> dict[str, np.ndarray]:
        """The training shares, of which the largest is predicted. Neither features nor `seed` are used."""
        cases = len(given.features.heldout)
        return {label: np.tile(shares(given.features, label), (cases, 1)) for label in given.features.classes}


class Stratified:
    """A class drawn for every case, each as often as it comes among the training cases."""

    name = "stratified"
    version = 2
    nature = BLIND
    Config = Settings

    def predict(self, given: Given, config: Settings, seed: int) -> dict[str, np.ndarray]:
        """Certain of the class that `seed` draws for the case. Features are not used."""
        cases, found = np.arange(len(given.features.heldout)), dict[str, np.ndarray]()
        for label in given.features.classes:
            share = shares(given.features, label)
            u = uniforms(seed, 0, cases, f"stratified/{label}", 1)
            # The first class whose cumulative share lies above u; rounding must not lead beyond the last.
            drawn = (u >= share.cumsum()[:-1]).sum(axis=1)
            found[label] = np.eye(len(share))[drawn]
        return found


def shares(features: Features, label: str) -> np.ndarray:
    """How much of the training cases each class has; all alike where no case's class is known."""
    truth, classes = features.train_labels[label], len(features.classes[label])
    counts = np.bincount(truth[truth != UNKNOWN], minlength=classes)
    return counts / counts.sum() if counts.sum() else np.full(classes, 1 / classes)
