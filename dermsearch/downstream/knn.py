"""k nearest neighbours by cosine: judges the geometry of the features, nothing is fitted."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from dermsearch.downstream.base import Features, Settings


class KnnConfig(Settings):
    """Settings of the kNN protocol."""

    k: int = Field(20, ge=1, le=1_000_000, description="neighbours; at most as many as there are training cases")
    temperature: float = Field(0.07, gt=0, le=1e6, description="a neighbour votes exp(cosine / temperature)")
    balanced: bool = Field(True, description="divide a neighbour's vote by its class's share of the training set")


class Knn:
    """Cosine kNN with softmax-weighted votes, as self-supervised encoders are usually judged."""

    name = "knn"
    version = 2
    Config = KnnConfig

    def predict(self, features: Features, label: str, config: KnnConfig, seed: int) -> np.ndarray:
        """Votes of the k most similar training cases, normalised. Deterministic: `seed` is not used."""
        train, truth = features.known(label)
        classes = len(features.classes[label])
        if len(truth) == 0:
            return np.full((len(features.heldout), classes), 1 / classes)
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        with threadpool_limits(1, user_api="blas"):  # the last bits do not depend on how many cores there are
            similarity = _unit(features.heldout.astype(np.float64)) @ _unit(train).T
        # A stable sort: of equally similar cases the earlier one is the neighbour.
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : config.k]
        similar = np.take_along_axis(similarity, nearest, axis=1)
        votes = np.exp((similar - similar[:, :1]) / config.temperature)  # the nearest votes 1: no overflow
        neighbours = truth[nearest]
        if config.balanced:
            votes = votes / np.bincount(truth, minlength=classes)[neighbours]
        # `eye` lays the votes out over every class, one that the training set lacks included.
        totals = np.einsum("hk,hkc->hc", votes, np.eye(classes)[neighbours])
        return totals / totals.sum(axis=1, keepdims=True)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length one; a row of zeros stays zero, similar to nothing."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
