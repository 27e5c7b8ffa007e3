"""The linear probe of released SM3 code: what the stage hands on is trained together with the heads."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from dermsearch.evaluate.base import Given
from dermsearch.models.artifact import HEADS
from dermsearch.nature import Nature
from dermsearch.settings import Settings


class Training(Settings):
    """How heads are trained on labels."""

    lr: float = Field(1e-3, gt=0, le=10, description="constant rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, le=100, description="AdamW's")
    epochs: int = Field(100, ge=1, le=100_000, description="the last one counts: no epoch is chosen")
    batch: int = Field(128, ge=2, le=1_000_000, description="training cases of a step")
    balanced: bool = Field(True, description="weight classes inversely to their frequency")


class LinearHandover:
    """Label projectors, relation module and prototypes are trained on frozen features; else fresh linear heads.

    All labels are learnt together by AdamW, the loss being the mean of their cross-entropies.
    """

    name = "linear_handover"
    version = 4
    nature = Nature(frozenset({"features", "heads"}))
    Config = Training

    def predict(self, given: Given, config: Training, seed: int) -> dict[str, np.ndarray]:
        """Probabilities of all labels. The same to the bit on any number of CPU threads."""
        import torch

        from dermsearch.fit.heads import Heads, counts_of, own_randomness, train_heads

        features = given.features
        device = given.images.device if given.images is not None else torch.device("cpu")
        counts = counts_of(features.train_labels, {label: len(names) for label, names in features.classes.items()})
        truth = np.stack([features.train_labels[label] for label in counts], axis=1).astype(np.int64)
        x, heldout = (torch.from_numpy(rows).to(device) for rows in (features.train, features.heldout))
        with own_randomness(seed, device, threads=1):
            heads = Heads(x.shape[1], counts, given.artifact.get(HEADS), seed).to(device)
            train_heads(heads, x, torch.from_numpy(truth).to(device), config, seed, self.name)
            with torch.no_grad():
                predicted = heads.probabilities(heldout)
        return {label: each.cpu().numpy() for label, each in predicted.items()}
