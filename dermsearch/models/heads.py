"""Small heads that tasks put on a backbone, and dropout that no number of processes changes."""

from __future__ import annotations

import zlib
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
    """Dropout whose mask is that of the global batch, of which each process makes its own rows.

    The masks are numbered, not drawn from a shared state: the trainer sets `step` before every forward,
    so a resumed stage and a stage on more processes drop the same units.
    """

    def __init__(self, p: float, seed: int) -> None:
        super().__init__()
        self.p, self.seed, self.step = p, seed, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        first = world.rank() * len(x)
        kept = chance(self.seed * 1_000_003 + self.step, range(first, first + len(x)), x[0].numel(), x.device) >= self.p
        return x * kept.view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))


def chance(seed: int, rows: range, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers in [0, 1], float32 (rows, count), each a hash of seed, row and place: the same on any device.

    Those behind views (`dermsearch.numbers`) have twice the bits; a mask needs no more, and comes twice as fast.
    """
    base = zlib.crc32(str(seed).encode()) - 2**31
    across = _mix(torch.arange(count, dtype=torch.int32, device=device) * _GOLDEN)
    down = _mix(torch.arange(rows.start, rows.stop, dtype=torch.int32, device=device) * _GOLDEN + base)
    # In pieces that stay in a core's cache; a GPU takes them at once.
    size = len(rows) if down.is_cuda else max(1, 2**18 // count)
    return torch.cat([_mix(part[:, None] + across).float().mul_(2.0**-32).add_(0.5) for part in down.split(size)])


_GOLDEN = 0x9E3779B9 - 2**32


def _mix(x: Tensor) -> Tensor:
    """A hash of 32 bits, in place: two rounds of shift and product, in which every bit moves half of the others."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x ^= (x >> shift) & (2 ** (32 - shift) - 1)  # the sign is not to be drawn in
        x *= factor
    x ^= (x >> 16) & 0xFFFF
    return x
