"""SimCLR: find the other view of an image among all views of the batch. (Chen et al. 2020)

Views   two of one family: resized crop, flip, strong jitter, grayscale, blur.
Heads   backbone -> linear, BatchNorm, ReLU, linear, BatchNorm, as in the authors' code; thrown away afterwards.
Loss    symmetric NT-Xent: cross-entropy of the cosines to all 2B - 1 other views / temperature against the partner.

Both views go through the network as one batch, so BatchNorm's statistics are those of all 2B views of the global
batch. Other images are the only negatives: the larger the batch, the better.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from dermsearch.errors import UserError
from dermsearch.models.contrast import nt_xent
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.views import contrastive, jitter


class SimCLR(Task):
    """Contrast within the batch."""

    name = "simclr"
    contrasts = True
    train_defaults: ClassVar = {
        "optimizer": "lars",
        "lr": 0.3,
        "lr_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1e-6,
        "schedule": "cosine",
        "warmup": 0.1,  # 10 epochs of 100
    }

    class Config(Settings):
        """LARS is for batches of 512 and more; smaller ones do better with AdamW or SGD."""

        temperature: float = Field(0.5, gt=0, le=10)  # 0.1 for batches of thousands
        strength: float = Field(1.0, ge=0, le=2.5)  # of the colour jitter
        scale: float = Field(0.08, gt=0, le=1)  # smallest share of the image that a crop takes
        hidden: int = Field(2048, ge=2, le=65536)  # width inside the head
        out: int = Field(128, ge=2, le=65536)  # width of what is contrasted

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.view = contrastive(setting.size, config.scale, jitter=jitter(config.strength))
        self.head = mlp(setting.dim, config.hidden, config.out, norm=True, bias=False)
        self.head.append(nn.BatchNorm1d(config.out))

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """A single image has nothing to be told from."""
        if setting.batch < 2:
            raise UserError(f"batch: must be at least 2, for SimCLR's negatives, not {setting.batch}")

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Two views, forward and backward."""
        return 2.0

    def loss(self, batch: Batch) -> Loss:
        features = self.backbone(torch.cat(batch.views([self.view] * 2, "view")))  # (2b, dim)
        first, second = self.head(features).chunk(2)
        return Loss(nt_xent(first, second, self.config.temperature), features[: len(batch.own)], {})
