"""Rotation: by how many quarter turns was this image turned? (Gidaris et al. 2018; settings of OpenMMLab)

Views   one resized crop, flipped or not, turned by 0, 90, 180 and 270 degrees counter-clockwise; all four are in the
        batch. The turns move whole pixels: an interpolated one would tell itself by its blur. No other rotation.
Heads   backbone -> linear -> 4 turns.
Loss    cross-entropy, four samples per image.

Lesions have no upright position, so what this task learns from dermoscopic images is largely how they were taken:
vignettes, ruler marks, the fall of hair and of light. Cut the borders off (`data.border`) before you trust it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch.data.views.augment import View
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task


class Rotation(Task):
    """Four-way classification of the turn."""

    name = "rotation"
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 0.2,
        "lr_batch": 128,  # the authors' 512 count every turn of an image
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "step",
        "milestones": (30 / 70, 50 / 70),  # of 70 epochs
        "factor": 0.1,
        "warmup": 5 / 70,
    }

    class Config(Settings):
        """One image of the batch is four to the backbone."""

        scale: float = Field(0.08, gt=0, le=1)  # smallest share of the image that a crop takes

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.view = View(setting.size, scale=(config.scale, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
        self.head = nn.Linear(setting.dim, 4)

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Four turns, forward and backward."""
        return 4.0

    def loss(self, batch: Batch) -> Loss:
        x = turns(batch.view(self.view, "view"))  # (b, 4, 3, s, s)
        features = self.backbone(x.flatten(0, 1))  # image by image
        logits = self.head(features).float()
        truth = torch.arange(4, device=logits.device).repeat(len(x))
        hits = (logits.detach().argmax(1) == truth).float().mean()
        return Loss(F.cross_entropy(logits, truth), features[::4], {"accuracy": hits})


def turns(x: Tensor) -> Tensor:
    """(b, 3, s, s) -> (b, 4, 3, s, s): turned counter-clockwise by 0 to 3 quarters, every pixel as it was."""
    return torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)], 1)
