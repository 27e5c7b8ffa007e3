"""Linear probe: a logistic regression on frozen, standardised features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pydantic import Field

from dermsearch.evaluate import strength
from dermsearch.evaluate.base import Features, Given, Settings
from dermsearch.evaluate.blocks import WHICH, Kind, features_of
from dermsearch.nature import Nature


class Regression(Settings):
    """Settings of a logistic regression."""

    c: float | None = Field(
        None, gt=0, le=1e12, description="inverse strength of the L2 penalty; null chooses it by cross-validation"
    )
    balanced: bool = Field(True, description="weight classes inversely to their frequency")
    max_iter: int = Field(500, ge=1, le=1_000_000, description="iterations of L-BFGS at most")


class LinearConfig(Regression):
    """Settings of the linear probe."""

    features: Kind = WHICH


class Linear:
    """Multinomial logistic regression, fitted by L-BFGS from zero."""

    name = "linear"
    version = 5
    nature = Nature()
    Config = LinearConfig

    def predict(self, given: Given, config: LinearConfig, seed: int) -> dict[str, np.ndarray]:
        """Probabilities over all classes, 0 for one the training set lacks. Deterministic: no `seed`."""
        return self.fitted(features_of(given, config.features), config)

    def fitted(self, features: Features, config: Regression) -> dict[str, np.ndarray]:
        """The same of features as they are."""
        c = config.c
        if c is None:  # once for all labels: a label alone has too few cases of its rare classes to tell
            labels = [features.train_labels[label] for label in features.classes]
            c = strength.choose(features.train, labels, features.whose, config.balanced)
        return {label: self._fit(features, label, c, config) for label in features.classes}

    def _fit(self, features: Features, label: str, c: float, config: Regression) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        train, truth = features.known(label)
        classes = len(features.classes[label])
        seen = np.unique(truth)
        if len(seen) == 0:
            return np.full((len(features.heldout), classes), 1 / classes)
        probabilities = np.zeros((len(features.heldout), classes))
        if len(seen) == 1:  # nothing to fit
            probabilities[:, seen[0]] = 1.0
            return probabilities

        model, mean, spread = regression(train, truth, c, config)
        with threadpool_limits(1, user_api="blas"):
            found = model.predict_proba((features.heldout - mean) / spread)
        probabilities[:, model.classes_] = found
        return probabilities


def regression(x: np.ndarray, truth: np.ndarray, c: float, config: Regression) -> tuple[Any, np.ndarray, np.ndarray]:
    """A logistic regression of two classes or more on standardised features; their mean and spread."""
    # Imported here: scikit-learn takes a second, and whoever only lists protocols need not wait.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < 1e-8] = 1.0  # a dead feature stays dead instead of becoming noise of unit size
    weights = "balanced" if config.balanced else None
    model = LogisticRegression(C=c, class_weight=weights, max_iter=config.max_iter)
    # One thread: the matrices are small, trials share the cores, and the sums keep one order.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is a probe like any other
        model.fit((x - mean) / spread, truth)
    return model, mean, spread
