"""HcCNN: a third branch joins both images' maps at every scale, and carries what it has learnt on. (Bi et al. 2020)

Stage   (before each residual layer of the encoders) both images' maps and the branch's own from before, side by side
        -> one convolution, a bottleneck beside it, two residual blocks, and attention (`ScaleAttention`).
Heads   pooled features of both images and of the branch -> 128 each -> linear heads on each (d, c, h) and on all three.
Loss    mean over labels of the cross-entropy of the joint heads, and as much of each of the three (`deep`).
Answer  by the joint heads.

How well it is known: by one re-implementation of others, for another task; the authors' losses and recipe are not.
Encoders without a map of stride 2 begin at the second stage, with two inputs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.fit.system import LinearHeads, Outputs, Shape, Sight, System, SystemSettings

STEM = 2  # the stride of an encoder's map that is pooled before its first layer


class HcCNN(System):
    """The hyper-connected network."""

    name = "hccnn"
    answer = "joint"
    together = True
    own: ClassVar = {
        "optimizer": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "cosine", "epochs": 50, "batch": 32,
    }  # fmt: skip

    class Config(SystemSettings):
        """`deep`: the three branches have losses of their own."""

        deep: bool = Field(True, description="losses of d, c and h too")

    def build(self, shape: Shape) -> nn.Module:
        return HyperNetwork(shape)

    def views(self, size: int) -> tuple[View, View]:
        return (View(size, scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.5, vflip=0.5, rotate=45.0),) * 2

    def objective(self, said: Outputs, truth: Tensor, seen: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        groups = said.groups if self.config.deep else {"joint": said.groups["joint"]}
        return super().objective(Outputs(groups), truth, seen, step)


class HyperNetwork(nn.Module):
    """The hyper-branch, and heads on all three branches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if len(shape.maps) < 2:
            raise UserError("encoder.name: must make maps of several sizes for hccnn, as convolutional networks do")
        self.stem = shape.strides[0] == STEM
        befores, afters = shape.maps[:-1], shape.maps[1:]
        self.stages = nn.ModuleList(
            HyperStage(before * (3 if i else 2), before, after, stride=1 if self.stem and i == 0 else 2)
            for i, (before, after) in enumerate(zip(befores, afters, strict=True))
        )
        widths = {"d": shape.width, "c": shape.width, "h": shape.maps[-1]}
        self.features = nn.ModuleDict({branch: nn.Linear(width, 128) for branch, width in widths.items()})
        self.dropouts = nn.ModuleDict({branch: shape.dropout(0.3, f"hccnn/{branch}") for branch in widths})
        self.heads = nn.ModuleDict({branch: LinearHeads(128, shape.classes) for branch in widths})
        self.joint = LinearHeads(3 * 128, shape.classes)

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        h = self.hyper(self.entering(d), self.entering(c))
        pooled = {"d": d.features, "c": c.features, "h": h.mean((2, 3))}
        each = {b: self.dropouts[b](F.silu(self.features[b](x))) for b, x in pooled.items()}
        groups = {branch: self.heads[branch](x) for branch, x in each.items()}
        return Outputs({**groups, "joint": self.joint(torch.cat(list(each.values()), 1))})

    def entering(self, sight: Sight) -> list[Tensor]:
        """The maps that enter each residual layer."""
        first, *others = sight.maps[:-1]
        return [F.max_pool2d(first, 3, 2, 1) if self.stem else first, *others]

    def hyper(self, d: list[Tensor], c: list[Tensor]) -> Tensor:
        """The branch's last map, from both images' maps stage by stage."""
        h: list[Tensor] = []
        for stage, x, y in zip(self.stages, d, c, strict=True):
            h = [stage(torch.cat([x, y, *h], 1))]
        return h[0]


class HyperStage(nn.Module):
    """Maps side by side -> one of the next scale, with attention."""

    def __init__(self, inputs: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        narrow = before // 4
        self.join = nn.Conv2d(inputs, before, 3, padding=1)
        self.down, self.up = nn.Conv2d(before, narrow, 3, padding=1), nn.Conv2d(narrow, before, 3, padding=1)
        self.blocks = nn.Sequential(ResidualBlock(before, narrow, stride), ResidualBlock(narrow, after, 1))
        self.attention = ScaleAttention(after)

    def forward(self, maps: Tensor) -> Tensor:
        x = F.relu(self.join(maps))
        return self.attention(self.blocks(x + self.up(F.relu(self.down(x)))))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside one of 1 x 1."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.beside = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.beside(x))


class ScaleAttention(nn.Module):
    """Every channel and every place of a map counts as much as a gate says: x * sigmoid(channel + place).

    The part of the place has the map added and ends in a ReLU, so it can only open the gate.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(nn.Linear(width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, width))
        self.place = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(x.mean((2, 3)))[:, :, None, None]
        return x * torch.sigmoid(channel + F.relu(self.place(x) + x))
