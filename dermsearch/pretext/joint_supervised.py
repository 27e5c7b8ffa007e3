"""Joint supervised and contrastive training: tell the diagnosis, and the other view. (Aggarwal et al.)

Reads labels, so it may only come last in a curriculum: as a reference for what labels are worth.

Views   two of one family: mild resized crop, both flips, a little rotation and jitter.
Heads   backbone -> linear, ReLU, linear -> a projection; linear on the projection -> classes.
Loss    cross-entropy, mean over both views of all labelled images of the global batch, plus `weight` x symmetric
        NT-Xent of the projections. A case without the label takes part in the second alone.
Draws   with replacement, in inverse proportion to the size of a case's class; a case without the label has the mean
        chance of those with one.

The authors' contrastive term had one view per image and the first other image of the batch as everybody's
partner; the one here is what they describe. Only training images are drawn, which theirs were not.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError, nearest
from dermsearch.models.contrast import nt_xent
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.batch import Pool, epoch_order


class JointSupervised(Task):
    """Classes and contrast at once."""

    name = "joint_supervised"
    version = 3
    contrasts = True
    supervised = True
    replacement = True
    train_defaults: ClassVar = {
        "optimizer": "adamw",
        "lr": 1e-3,
        "lr_batch": 64,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 0.0,
    }

    class Config(Settings):
        """`label`: which of the cases' labels is learnt."""

        label: str = "diagnosis"  # which of the cases' labels is learnt
        weight: float = Field(0.5, ge=0, le=1e6)  # of the contrast, against 1 of the classes
        temperature: float = Field(0.5, gt=0, le=10)  # of the contrast
        out: int = Field(128, ge=2, le=65536)  # width of what is contrasted
        balanced: bool = True  # are rare classes drawn as often as common ones?

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.view = View(
            setting.size,
            scale=(0.8, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=0.5,
            vflip=0.5,
            rotate=15.0,
            jitter=(0.2, 0.2, 0.2, 0.1),
            jitter_p=1.0,
        )
        self.head = mlp(setting.dim, setting.dim, config.out)
        self.classifier = nn.Linear(config.out, setting.classes[config.label])

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """The cases must have the label, of two classes at least, and a batch two images."""
        if setting.classes and config.label not in setting.classes:
            raise UserError(
                f"label: must be a label of the cases, not '{config.label}'; {nearest(config.label, setting.classes)}"
            )
        if setting.classes and setting.classes[config.label] < 2:
            raise UserError(f"label: must be one of two classes or more, not '{config.label}', which has one")
        if setting.batch < 2:
            raise UserError(f"batch: must be at least 2, for a contrast, not {setting.batch}")

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Two views, forward and backward."""
        return 2.0

    def plan_epoch(self, epoch: int, pool: Pool, count: int) -> np.ndarray:
        truth = pool.labels(self.config.label, np.arange(len(pool)))
        drawn = chances(truth) if self.config.balanced else None
        return epoch_order(self.setting.seed, epoch, len(pool), count, self.replacement, drawn, pool.strata)

    def loss(self, batch: Batch) -> Loss:
        # Numbered by the step, and within it: a rare case comes again and again and shall look different every time.
        views = batch.views([self.view] * 2, f"view/{batch.turn}", again=True)
        features = self.backbone(torch.cat(views))  # (2b, dim)
        projections = self.head(features)
        truth = batch.labels(self.config.label).repeat(2)
        classes, accuracy = classification(self.classifier(projections), truth)
        first, second = projections.chunk(2)
        units = batch.on_device(batch.own)  # a case is no negative of itself, however often it was drawn
        value = classes + self.config.weight * nt_xent(first, second, self.config.temperature, units=units)
        return Loss(value, features[: len(batch.own)], {"accuracy": accuracy})


def classification(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy of this process's rows, as means over all labelled rows of the global batch.

    A row of truth -1 is left out. Processes may hold different numbers of labelled rows: each divides its sum by
    everybody's, times the processes, because their mean is taken.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    share = world.reduce_sum((truth >= 0).sum()).clamp(min=1) / world.size()
    value = F.cross_entropy(logits, truth, ignore_index=-1, reduction="sum") / share
    hits = (logits.detach().argmax(1) == truth).sum() / share
    return value, hits


def chances(labels: np.ndarray) -> np.ndarray | None:
    """Of every case to be drawn: one over the size of its class; without a label (-1), the mean of those with one."""
    known = labels >= 0
    if not known.any():
        return None
    found = 1 / np.bincount(labels[known])[labels]
    return np.where(known, found, found[known].mean())
