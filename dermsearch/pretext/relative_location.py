"""Relative patch location: where does this patch lie, seen from the centre patch? (Doersch et al. 2015)

Views   a random crop, in two thirds of the images without colour, cut into 3 x 3 cells, one patch from a
        random place in each cell. No flip, rotation or jitter: they would move or mark the patches.
Heads   features of neighbour and centre side by side -> linear, BatchNorm, ReLU, dropout -> 8 places.
Loss    cross-entropy, eight (neighbour, centre) samples per image; places count row by row from top-left.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from dermsearch.data.views.augment import PatchGrid
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task

CENTRE = 4
# Below this a network of stride 32 has no room: its last 3 x 3 convolutions would see single pixels (and oneDNN's
# bf16 weight gradient of such a convolution is uninitialised memory; see docs/log/2026-11.md).
SMALLEST = 24
NEIGHBOURS = [0, 1, 2, 3, 5, 6, 7, 8]  # the cell of each of the eight answers


class RelativeLocation(Task):
    """Eight-way classification of a neighbour's place."""

    name = "relative_location"
    version = 4
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 0.2,
        "lr_batch": 512,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 0.07,
    }

    class Config(Settings):
        """`patch`: side that a patch is rendered at, in pixels; by default what it covers, at least `SMALLEST`."""

        # Side that a patch is rendered at, in pixels; null: what it covers.
        patch: int | None = Field(None, ge=24, le=512)
        gray: float = Field(0.66, ge=0, le=1)  # share of images without colour
        dropout: float = Field(0.5, ge=0, lt=1)  # in the head
        head_weight_decay: float = Field(5e-4, ge=0, le=1)  # of the head alone

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.grid = PatchGrid(rendered(config, setting.size), config.gray)
        pair = 2 * setting.dim
        self.neck = nn.Sequential(
            nn.Linear(pair, pair),
            nn.BatchNorm1d(pair, momentum=0.003),
            nn.ReLU(),
        )
        self.dropout = GlobalDropout(config.dropout, setting.seed)
        self.head = nn.Linear(pair, 8)
        nn.init.normal_(self.neck[0].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.neck[0].bias)  # type: ignore[arg-type]
        nn.init.normal_(self.head.weight, std=0.005)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Nine patches."""
        return 9 * (rendered(config, size) / size) ** 2

    def loss(self, batch: Batch) -> Loss:
        x = batch.patches(self.grid, "patches")  # (b, 9, 3, p, p)
        b = len(x)
        features = self.backbone(x.flatten(0, 1)).reshape(b, 9, -1)
        centre = features[:, CENTRE : CENTRE + 1].expand(-1, 8, -1)
        around = torch.stack([features[:, cell] for cell in NEIGHBOURS], 1)  # a list of places would have to be sent
        pairs = torch.cat([around, centre], 2).flatten(0, 1)  # (8 b, 2 dim), image by image
        logits = self.head(self.dropout(self.neck(pairs))).float()
        truth = torch.arange(8, device=logits.device).repeat(b)
        hits = (logits.detach().argmax(1) == truth).float().mean()
        return Loss(F.cross_entropy(logits, truth), features[:, CENTRE], {"accuracy": hits})

    def options(self) -> dict[str, dict[str, float]]:
        return {
            "neck": {"weight_decay": self.config.head_weight_decay},
            "head": {"weight_decay": self.config.head_weight_decay},
        }


def rendered(config: RelativeLocation.Config, size: int) -> int:
    """The side of a patch in pixels."""
    return config.patch or max(SMALLEST, round(PatchGrid.part * size))
