"""SM3's own baseline: both images' features side by side, and a linear head for each label. (Wang et al.)

What every other system of the table has to beat: no fusion but that of the heads. Its recipe is the common one.
How well it is known: exactly, but for the schedule, which is that of `finetune` here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dermsearch.fit.system import LinearHeads, Outputs, Shape, Sight, System, SystemSettings


class Baseline(System):
    """Two encoders, eight heads."""

    name = "baseline"
    answer = "dc"

    class Config(SystemSettings):
        """Nothing of its own."""

    def build(self, shape: Shape) -> nn.Module:
        return BaselineNetwork(shape)


class BaselineNetwork(nn.Module):
    """(d, c) side by side -> heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = LinearHeads(2 * shape.width, shape.classes)

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        return Outputs({"dc": self.heads(torch.cat([d.features, c.features], 1))})
