"""Small heads that tasks put on a backbone, and dropout that no number of processes changes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from dermsearch import world


def mlp(*widths: int, norm: bool = False, bias: bool = True) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them: mlp(512, 512, 128) is MoCo v2's head.

    `norm` puts a BatchNorm before each ReLU, as in the heads of SimCLR, BYOL and SwAV.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers[: -2 if norm else -1])


class GlobalDropout(nn.Module):
    """Dropout whose mask is drawn for the global batch, of which each process takes its rows.

    The masks are numbered, not drawn from a shared state: the trainer sets `step` before every forward,
    so a resumed stage and a stage on more processes drop the same units.
    """

    def __init__(self, p: float, seed: int) -> None:
        super().__init__()
        self.p, self.seed, self.step = p, seed, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        rows = len(x) * world.size()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        kept = torch.rand(rows, *x.shape[1:], generator=generator)[world.mine(rows)] >= self.p
        return x * kept.to(x.device) / (1 - self.p)
