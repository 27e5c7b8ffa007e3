"""k nearest neighbours by cosine: judges the geometry of the features, nothing is fitted."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from dermsearch.evaluate.base import UNKNOWN, Features, Given, Settings
from dermsearch.nature import Nature


class KnnConfig(Settings):
    """Settings of kNN."""

    k: int = Field(20, ge=1, le=1_000_000, description="neighbours; at most as many as there are training cases")
    temperature: float = Field(0.07, gt=0, le=1e6, description="a neighbour votes exp(cosine / temperature)")
    balanced: bool = Field(True, description="divide a neighbour's vote by its class's share of the training set")


class Knn:
    """Cosine kNN with softmax-weighted votes, as self-supervised encoders are usually judged."""

    name = "knn"
    version = 4
    nature = Nature()
    Config = KnnConfig

    def predict(self, given: Given, config: KnnConfig, seed: int) -> dict[str, np.ndarray]:
        """Votes of the k most similar training cases, normalised. Deterministic: `seed` is not used."""
        features, found = given.features, dict[str, np.ndarray]()
        neighbours: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # labels known of the same cases share theirs
        for label, names in features.classes.items():
            known = features.train_labels[label] != UNKNOWN
            if not known.any():
                found[label] = np.full((len(features.heldout), len(names)), 1 / len(names))
                continue
            if known.tobytes() not in neighbours:
                neighbours[known.tobytes()] = self._nearest(features, known, config.k)
            nearest, similar = neighbours[known.tobytes()]
            truth = features.train_labels[label][known]
            votes = np.exp((similar - similar[:, :1]) / config.temperature)  # the nearest votes 1: no overflow
            if config.balanced:
                votes = votes / np.bincount(truth, minlength=len(names))[truth[nearest]]
            # `eye` lays the votes out over every class, one that the training set lacks included.
            totals = np.einsum("hk,hkc->hc", votes, np.eye(len(names))[truth[nearest]])
            found[label] = totals / totals.sum(axis=1, keepdims=True)
        return found

    def _nearest(self, features: Features, known: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each held-out case the k most similar of these training cases, and how similar they are."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):  # the last bits do not depend on how many cores there are
            similarity = unit(features.heldout) @ unit(features.train[known]).T
        # A stable sort: of equally similar cases the earlier one is the neighbour.
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return nearest, np.take_along_axis(similarity, nearest, axis=1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows in float64, scaled to length one; a row of zeros stays zero, similar to nothing."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
