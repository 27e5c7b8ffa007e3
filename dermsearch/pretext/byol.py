"""BYOL: predict what a slow copy of the network makes of the other view of an image. (Grill et al. 2020)

Views   two unlike ones: resized crop, flip, jitter, grayscale; the first always blurred, the second rarely, but
        sometimes solarised. (The authors resize bicubically; here all views are resized bilinearly.)
Heads   online: backbone -> projector -> predictor, both linear, BatchNorm, ReLU, linear; target: a slow copy of
        backbone and projector, whose BatchNorm has the statistics of its own forward passes. The online backbone
        is what is handed on.
Loss    2 - 2 cos(prediction, target's projection of the other view), summed over both directions: 0 to 8.
Target  moves after the optimiser's step, by a momentum that climbs to 1 along a cosine over the steps of the stage.

There are no negatives. What keeps the network from giving all images one vector is that the target has no
gradient and that the predictor learns.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch.errors import UserError
from dermsearch.models.heads import mlp
from dermsearch.models.momentum import Follower, momentum_at
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.views import MILDER, contrastive


class BYOL(Task):
    """Bootstrap your own latent."""

    name = "byol"
    train_defaults: ClassVar = {
        "optimizer": "lars",
        "lr": 0.2,
        "lr_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1.5e-6,
        "schedule": "cosine",
        "warmup": 0.03,  # 10 epochs of 300
    }

    class Config(Settings):
        """`momentum_encoder` is that of the first step: 0.99 up to 300 epochs, 0.996 for a thousand."""

        momentum_encoder: float = Field(0.99, ge=0, le=1)  # of the slow copy at the first step, 1 at the last
        scale: float = Field(0.08, gt=0, le=1)  # smallest share of the image that a crop takes
        hidden: int = Field(4096, ge=2, le=65536)  # width inside the heads
        out: int = Field(256, ge=2, le=65536)  # width of what is predicted

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.views = [
            contrastive(setting.size, config.scale, jitter=MILDER, blur=blur, solarize=solarize)
            for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
        ]
        self.projector = mlp(setting.dim, config.hidden, config.out, norm=True)
        self.predictor = mlp(config.out, config.hidden, config.out, norm=True)
        self.target = Follower(backbone, self.projector)

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """BatchNorm leaves nothing of a single image."""
        if setting.batch < 2:
            raise UserError(f"batch: must be at least 2, for BYOL's BatchNorm, not {setting.batch}")

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Two views forward and backward, and both forward through the target: a third of that each."""
        return 2 + 2 / 3

    def loss(self, batch: Batch) -> Loss:
        views = batch.views(self.views, "view")
        features = [self.backbone(x) for x in views]  # view by view, each with statistics of its own
        predictions = [self.predictor(self.projector(f)) for f in features]
        with torch.no_grad():
            targets = [self.target(x) for x in views]
        return Loss(byol_loss(predictions, targets), features[0], {})

    def after_step(self, batch: Batch) -> None:
        momentum = momentum_at(batch.step, self.setting.steps, self.config.momentum_encoder)
        self.target.follow([self.backbone, self.projector], momentum)


def byol_loss(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean over the rows of 2 - 2 cos(prediction, target of the other view), summed over both directions."""
    with torch.autocast(predictions[0].device.type, enabled=False):
        pairs = zip(predictions, reversed(targets), strict=True)
        return torch.stack([(2 - 2 * cosine(p, z.detach())).mean() for p, z in pairs]).sum()


def cosine(p: Tensor, z: Tensor) -> Tensor:
    """Of each row with its partner, in single precision at least."""
    dtype = torch.promote_types(p.dtype, torch.float32)
    return F.cosine_similarity(p.to(dtype), z.to(dtype), dim=1)
