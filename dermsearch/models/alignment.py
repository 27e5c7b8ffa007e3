"""How two data sets' features are made alike: discrepancies, gates, corrections. (DCAN: Li et al. 2020; DANN: 2016)

Discrepancy  MMD by a sum of Gaussian kernels whose widths follow the batch. `full` looks at all pairs and is unbiased,
             `ring` at each row and its neighbour, as the released code does: some five times as noisy, and no cheaper.
Regulariser  each class of the source against a random part of it, corrected. `released` is as the public code has it:
             its pairs are off by as much as the class is larger or smaller than the part.
Gate         channels are weighed by their mean over the map. The first layer is each domain's own, the second shared.
Correction   what is added to the target's features and logits so that they look like the source's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

FIVE = 5  # kernels, each twice as wide as the one before
LEAST = 1e-7  # probability that counts in an entropy
FIXED = 1.68  # the width of the one kernel on probabilities


def kernel(rows: Tensor, width: float | None = None) -> Tensor:
    """(n, n) similarities of all rows: one Gaussian of that width, else five around the rows' mean distance."""
    distances = (rows[:, None] - rows[None]).square().sum(2)
    if width is not None:
        return torch.exp(-distances / width)
    n = len(rows)
    middle = distances.detach().sum() / (n * n - n)
    widths = (middle / 4).clamp(min=torch.finfo(rows.dtype).tiny)  # rows that are all alike have no distance
    return torch.stack([torch.exp(-distances / (widths * 2**i)) for i in range(FIVE)]).sum(0)


def mmd(source: Tensor, target: Tensor, estimator: str = "full", width: float | None = None) -> Tensor:
    """How far two samples' laws lie apart, squared: (n, d) against (m, d), for `ring` as many of each."""
    n, m = len(source), len(target)
    similar = kernel(torch.cat([source, target]), width)
    if estimator == "ring":
        return ring(similar, n, n) / n
    own, others, across = similar[:n, :n], similar[n:, n:], similar[:n, n:]
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (own, others)]
    return within[0] + within[1] - 2 * across.mean() if min(n, m) > 1 else similar.sum() * 0.0


def ring(similar: Tensor, rows: int, offset: int) -> Tensor:
    """Sum over rows and their neighbours; the partner of row i is row i + `offset` of those that were joined."""
    i = torch.arange(rows, device=similar.device)
    j = (i + 1) % rows
    a, b = i + offset, j + offset
    return (similar[i, j] + similar[a, b] - similar[i, b] - similar[j, a]).sum()


def regulariser(
    of_class: Tensor, part: Tensor, kind: str, estimator: str = "full", width: float | None = None
) -> Tensor:
    """One class's rows against a part of the source: half their MMD, or what the released code makes of them."""
    n, m = len(of_class), len(part)
    if estimator == "full" and kind == "full":
        return mmd(of_class, part, estimator, width) / 2
    similar = kernel(torch.cat([of_class, part]), width)
    rows, offset, over = (n, m, n + m) if kind == "released" else (min(n, m), n, 2 * min(n, m))
    return ring(similar, rows, offset) / over


def entropy(probabilities: Tensor) -> Tensor:
    """The mean over rows of -sum p log p, without what is next to nothing."""
    each = probabilities * probabilities.clamp(min=LEAST).log()
    return -each.where(probabilities >= LEAST, 0.0).sum(1).mean()


def ramp(progress: float) -> float:
    """From 0 to almost 1, as adversaries are let in."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Doubled(nn.Module):
    """The first layer of a gate, once for each domain."""

    def __init__(self, first: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.source, self.target = first, other
        self.on_target = True  # which domain it sees

    def begin(self) -> None:
        """The target's layer starts as the source's is by now."""
        self.target.load_state_dict(self.source.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.target(x) if self.on_target else self.source(x)


class Gate(Doubled):
    """Channels of a map, weighed by their means. One that joins a network later begins as the identity."""

    def __init__(self, channels: int, reduction: int) -> None:
        hidden = max(1, channels // reduction)
        super().__init__(nn.Linear(channels, hidden), nn.Linear(channels, hidden))
        self.second = nn.Linear(hidden, channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, maps: Tensor) -> Tensor:
        weights = weigh(maps.mean((2, 3)), super().forward, self.second)
        return maps * (2 * weights)[:, :, None, None]


def weigh(means: Tensor, first: Any, second: Any) -> Tensor:
    """What a gate makes of the means of channels, from 0 to 1."""
    return torch.sigmoid(second(torch.relu(first(means))))


class Correction(nn.Sequential):
    """What is added: width -> hidden -> width, almost nothing at the start."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        for layer in (self[0], self[2]):
            nn.init.normal_(layer.weight, 0, 0.005)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, 0.1)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _TurnedRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """The same, whose gradient goes the other way: what learns behind it is worked against before it."""
    return _TurnedRound.apply(x, strength)
