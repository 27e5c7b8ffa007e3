"""The centre of what a teacher says, which DINO and iBOT take from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dermsearch import world


class Centre(nn.Module):
    """A moving average over the global batches."""

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.value: Tensor
        self.register_buffer("value", torch.zeros(width))

    @torch.no_grad()
    def update(self, mean: Tensor) -> None:
        """Move towards the mean (width,) of this process's rows; all processes hold equally many."""
        mean = world.reduce_sum(mean) / world.size()
        self.value.copy_(self.value * self.momentum + mean * (1 - self.momentum))
