"""Retrieval: are the training cases that look most as a held-out case does of the same class? Nothing is fitted."""

from __future__ import annotations

import numpy as np

from dermsearch.evaluate.base import UNKNOWN, Given, Settings
from dermsearch.evaluate.found import KS, METRICS
from dermsearch.evaluate.nearest import NONE, nearest
from dermsearch.nature import Nature


class Retrieval:
    """The most similar training cases by cosine, never of the query's own patient."""

    name = "retrieval"
    version = 1
    nature = Nature(metrics=METRICS)
    Config = Settings

    def find(self, given: Given, config: Settings, seed: int) -> dict[str, np.ndarray]:
        """For each label the places of the ten nearest training cases that have it. Deterministic: no `seed`."""
        features, found = given.features, dict[str, np.ndarray]()
        owners = features.train_groups
        seen: dict[bytes, np.ndarray] = {}  # labels known of the same cases share what is found
        for label in features.classes:
            known = np.flatnonzero(features.train_labels[label] != UNKNOWN)
            if known.tobytes() not in seen:
                mine = None if owners is None else owners[known]
                places, _ = nearest(features.heldout, features.train[known], max(KS), features.heldout_groups, mine)
                seen[known.tobytes()] = np.where(places == NONE, NONE, known[places]) if len(known) else places
            found[label] = seen[known.tobytes()]
        return found
