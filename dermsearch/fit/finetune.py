"""Fine-tuning: encoders and heads are all trained on the labelled training cases, from their images.

Views   a resized crop of each image and a flip, drawn for each modality alone.
Heads   the encoders' features side by side -> the heads that the parent hands on, if it does; else a linear one for
        each label.
Loss    cross-entropy of each label over the cases that it is known of, then the mean over labels; `balanced`, classes
        weigh alike, however many cases they have.
Predict the whole images, after the last epoch: no epoch is chosen.

An image that a case lacks has features of zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dermsearch.data.views.augment import View
from dermsearch.fit.base import Fit, labels_of, shares
from dermsearch.fit.heads import Heads, balance, mean_loss
from dermsearch.fit.rate import Rate, rates_of
from dermsearch.models.artifact import HEADS
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, Loss, Setting
from dermsearch.settings import Settings


class Finetune(Fit):
    """The encoders with heads for all labels; every weight learns."""

    name = "finetune"
    version = 3

    class Config(Settings):
        """AdamW on all weights alike."""

        lr: Rate = Field(1e-4, description="rate of AdamW, or some, of which training cases kept aside choose")
        weight_decay: float = Field(0.01, ge=0, le=100, description="AdamW's")
        schedule: Literal["constant", "cosine"] = Field("cosine", description="of the rate")
        warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate climbs")
        epochs: int = Field(50, ge=1, le=100_000, description="the last one counts: no epoch is chosen")
        batch: int = Field(64, ge=2, le=1_000_000, description="training cases of a step")
        crop: float = Field(0.5, gt=0, le=1, description="the smallest random crop, as a share of the image's area")
        balanced: bool = Field(True, description="weight classes inversely to their frequency")

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        self.view = View(setting.size, scale=(config.crop, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
        width = encoders.dim * len(encoders.modalities)
        self.heads = Heads(width, setting.counts, setting.artifact.get(HEADS), setting.seed)
        self.weights = balance(setting.counts) if config.balanced else None

    @classmethod
    def recipe(cls, config: Any) -> dict[str, Any]:
        given = config.model_dump(exclude={"crop", "balanced"})
        return {"optimizer": "adamw", **given, "lr": (*rates_of(config), config.lr)[0]}

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        features = self.features(batches, lambda batch: batch.view(self.view, "view"))
        joined = torch.cat(list(features.values()), 1)
        with torch.autocast(joined.device.type, enabled=False):
            truth = labels_of(batches, list(self.setting.counts))
            value, accuracy = mean_loss(self.heads(joined), truth, self.weights)
        return shares(value, features, {"accuracy": accuracy})

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        joined = torch.cat(list(self.features(batches, Batch.whole).values()), 1)
        with torch.autocast(joined.device.type, enabled=False):
            return self.heads.probabilities(joined)
