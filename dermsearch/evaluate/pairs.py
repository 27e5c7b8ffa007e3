"""Pair matching: does a case's dermoscopic image find its own clinical image among all others, and the reverse?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dermsearch.evaluate.base import Given, Settings
from dermsearch.evaluate.found import mean
from dermsearch.evaluate.knn import unit
from dermsearch.metrics import Measurement, case_weights
from dermsearch.nature import Nature

LABEL = "pairs"


class Pairs:
    """Rank of the own partner by cosine, on training cases and on held-out cases. Nothing is learnt."""

    name = "pairs"
    version = 1
    nature = Nature(frozenset({"features", "pairs"}), ("acc_at_1", "acc_at_5"), (LABEL,), learns=False)
    Config = Settings

    def measure(self, given: Given, config: Settings, seed: int) -> Iterator[tuple[str, Measurement]]:
        """Mean rank and accuracy of both directions, and their mean. Deterministic: `seed` is not used."""
        features = given.features
        if len(features.columns) != 2:
            raise ValueError(f"pairs: needs the columns of two modalities, not of {len(features.columns)}")
        for split, rows, patients in (
            ("train", features.train, features.whose),
            (features.split, features.heldout, features.heldout_groups),
        ):
            for measure in _measures(rows, features.columns, patients):
                yield split, measure


def positions(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row of a square matrix, how many columns are more similar than its own, and how many others as similar."""
    own = np.diagonal(similarity)[:, None]
    return (similarity > own).sum(axis=1), (similarity == own).sum(axis=1) - 1


def _measures(rows: np.ndarray, columns: Mapping[str, slice], groups: np.ndarray) -> Iterator[Measurement]:
    from threadpoolctl import threadpool_limits

    first, second = columns
    with threadpool_limits(1, user_api="blas"):
        # Rounded, so that encoders which see every image alike give ties and not the last bits of a sum.
        cosine = (unit(rows[:, columns[first]]) @ unit(rows[:, columns[second]]).T).round(9)
    # Patients are drawn anew among those who ask; the images that are asked for stay all.
    weights = case_weights(groups)
    found: dict[str, list[np.ndarray]] = {}
    for direction, similarity in ((f"{first} to {second}", cosine), (f"{second} to {first}", cosine.T)):
        better, ties = positions(similarity)
        # Among ties the own partner may be anywhere: half of them are before it, and the k-th place is shared.
        hits = {f"acc_at_{k}": np.clip((k - better) / (ties + 1), 0, 1) for k in (1, 5)}
        for metric, value in {"mean_rank": 1 + better + ties / 2, **hits}.items():
            values = mean(value, weights)
            found.setdefault(metric, []).append(values)
            yield Measurement(LABEL, direction, metric, len(rows), values)
    for metric, both in found.items():
        yield Measurement(LABEL, "", metric, len(rows), np.mean(both, axis=0))
