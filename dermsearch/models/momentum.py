"""A slow copy of a network: the keys of MoCo, the target of BYOL, the teacher of DINO and iBOT."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Follower(nn.Module):
    """A copy of some modules, one after another, without gradient, that follows them as a moving average.

    Parameters are averaged; buffers are its own (a BatchNorm's statistics come from its own forward passes).
    """

    def __init__(self, *leaders: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(copy.deepcopy(leader) for leader in leaders)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    @torch.no_grad()
    def follow(self, leaders: Iterable[nn.Module], momentum: float) -> None:
        """Every parameter becomes momentum * old + (1 - momentum) * its leader's."""
        mine: list[Tensor] = list(self.parts.parameters())
        theirs: list[Tensor] = [p for leader in leaders for p in leader.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - momentum)


def momentum_at(step: int, steps: int, start: float) -> float:
    """From `start` to 1 along half a cosine, by the step and not by the epoch."""
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2
