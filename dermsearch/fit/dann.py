"""DANN: a classifier of domains learns, and the encoders learn to deceive it. (Ganin et al. 2016)

Its gradient is turned round on its way into the features, more strongly as the second phase goes on.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dermsearch.fit.adaptation import Adaptation, AdaptationSettings
from dermsearch.models.alignment import ramp, reversed_gradient
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import Batch, Setting


class DANN(Adaptation):
    """An adversary that tells domains apart."""

    name = "dann"
    version = 2
    aligns = True

    class Config(AdaptationSettings):
        """The adversary."""

        weight: float = Field(0.3, ge=0, le=100, description="of what the adversary loses, at its strongest")
        hidden: int = Field(128, ge=1, le=65536, description="width of the adversary")

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        self.adversary = mlp(self.width, config.hidden, 1)

    def align(self, source: Tensor, target: Tensor, truth: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        strength = self.config.weight * ramp(self.progress(batch.step))
        features = reversed_gradient(torch.cat([source, target]), strength)
        said = self.adversary(features)[:, 0]
        domain = torch.cat([torch.ones_like(source[:, 0]), torch.zeros_like(target[:, 0])])
        loss = F.binary_cross_entropy_with_logits(said, domain)
        return loss, {"domains_told": ((said > 0) == (domain > 0.5)).float().mean()}
