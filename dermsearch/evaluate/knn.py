"""k nearest neighbours by cosine: judges the geometry of the features, nothing is fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
from pydantic import Field

from dermsearch.errors import UserError
from dermsearch.evaluate.base import UNKNOWN, Features, Given, Settings
from dermsearch.evaluate.blocks import WHICH, Kind, features_of
from dermsearch.evaluate.strength import folds
from dermsearch.nature import Nature

AMONG = (1, 3, 5, 10, 20, 50, 100)  # what k is chosen from
BLOCK = 256  # held-out cases that are compared with all training cases at once


class KnnConfig(Settings):
    """Settings of kNN."""

    features: Kind = WHICH
    k: int | None = Field(
        20, ge=1, le=1_000_000, description="neighbours, at most the training cases; null chooses by cross-validation"
    )
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
        features = features_of(given, config.features)
        self.enough(config, len(features.train))
        k = self.chosen(features, config) if config.k is None else config.k
        return self.votes(features, k, config)

    def chosen(self, features: Features, config: KnnConfig) -> int:
        """The k with the best balanced accuracy on training patients that are held out in turn; of equals the least.

        Few labelled cases need few neighbours. Held-out cases of the study have no say.
        """
        fold, scores = folds(features.whose), dict[int, list[float]]()
        for turn in np.unique(fold):
            part = apart(features, fold != turn, fold == turn)
            for k in (k for k in AMONG if k <= len(part.train)):
                votes = self.votes(part, k, config)
                right = [recalls(part.heldout_labels[label], votes[label]) for label in features.classes]
                scores.setdefault(k, []).append(float(np.nanmean(right)) if np.isfinite(right).any() else 0.0)
        whole = {k: sum(found) for k, found in scores.items() if len(found) == len(np.unique(fold))}
        return max(whole, key=lambda k: (whole[k], -k), default=1)

    def votes(self, features: Features, k: int, config: KnnConfig) -> dict[str, np.ndarray]:
        """What the k most similar training cases say of each held-out case, by label."""
        found, k = dict[str, np.ndarray](), min(k, len(features.train))
        neighbours: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # labels known of the same cases share theirs
        for label, names in features.classes.items():
            known = features.train_labels[label] != UNKNOWN
            if not known.any():
                found[label] = np.full((len(features.heldout), len(names)), 1 / len(names))
                continue
            if known.tobytes() not in neighbours:
                neighbours[known.tobytes()] = self._nearest(features, known, k)
            nearest, similar = neighbours[known.tobytes()]
            truth = features.train_labels[label][known]
            votes = np.exp((similar - similar[:, :1]) / config.temperature)  # the nearest votes 1: no overflow
            if config.balanced:
                votes = votes / np.bincount(truth, minlength=len(names))[truth[nearest]]
            # `eye` lays the votes out over every class, one that the training set lacks included.
            totals = np.einsum("hk,hkc->hc", votes, np.eye(len(names))[truth[nearest]])
            found[label] = totals / totals.sum(axis=1, keepdims=True)
        return found

    @staticmethod
    def enough(config: KnnConfig, cases: int) -> None:
        """Refuse more neighbours than there are labelled training cases."""
        if config.k is not None and config.k > cases:
            raise UserError(f"downstream.knn.k: must be at most {cases}, the labelled training cases, not {config.k}")

    def _nearest(self, features: Features, known: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each held-out case the k most similar of these training cases, and how similar they are."""
        from threadpoolctl import threadpool_limits

        train, heldout, parts = unit(features.train[known]), unit(features.heldout), []
        with threadpool_limits(1, user_api="blas"):  # the last bits do not depend on how many cores there are
            for start in range(0, len(heldout), BLOCK):
                similarity = heldout[start : start + BLOCK] @ train.T
                nearest = most_similar(similarity, k)
                parts.append((nearest, np.take_along_axis(similarity, nearest, axis=1)))
        nearest, similar = (np.concatenate(each) for each in zip(*parts, strict=True))
        return nearest, similar


def apart(features: Features, learnt: np.ndarray, held: np.ndarray) -> Features:
    """Some of the training cases, judged on others of them."""
    labels, groups = features.train_labels, features.whose
    return dataclasses.replace(
        features,
        train=features.train[learnt],
        heldout=features.train[held],
        train_labels={label: truth[learnt] for label, truth in labels.items()},
        heldout_labels={label: truth[held] for label, truth in labels.items()},
        heldout_groups=groups[held],
        train_groups=groups[learnt],
        heldout_cases=None,
    )


def recalls(truth: np.ndarray, votes: np.ndarray) -> float:
    """Balanced accuracy: the mean over the classes that occur; NaN where none is known."""
    kinds, taken = np.unique(truth[truth != UNKNOWN]), votes.argmax(axis=1)
    return float(np.mean([(taken[truth == kind] == kind).mean() for kind in kinds])) if len(kinds) else np.nan


def most_similar(similarity: np.ndarray, k: int) -> np.ndarray:
    """Of each row the k largest, in falling order; of equals the earlier one comes first, as in a stable sort."""
    if k < similarity.shape[1]:
        kept = np.sort(np.argpartition(similarity, -k, axis=1)[:, -k:], axis=1)
        least = np.take_along_axis(similarity, kept, axis=1).min(axis=1)
        tied = np.flatnonzero((similarity >= least[:, None]).sum(axis=1) > k)  # there the earlier are to be kept
        kept[tied] = np.sort(np.argsort(-similarity[tied], axis=1, kind="stable")[:, :k], axis=1)
    else:
        kept = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    order = np.argsort(-np.take_along_axis(similarity, kept, axis=1), axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows in float64, scaled to length one; a row of zeros stays zero, similar to nothing."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
