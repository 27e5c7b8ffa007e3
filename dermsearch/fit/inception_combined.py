"""Inception-Combined: a loss for every subset of the inputs, on batches that hold every class. (Kawahara et al. 2019)

Network the pooled features d, c of both images and m, a few words of metadata -> linear heads for each label on
        d, c, dc, dm, cm and dcm. A linear head behind pooling makes tiling m over the last map the same as this.
Batch   one case for every class of every label (24 of derm7pt), drawn with replacement; larger ones hold more of each.
Loss    sum over the groups of heads, mean over labels, of the cross-entropy in which a case weighs one over how often
        its class stands in the batch.
Answer  by the heads whose inputs a case has: dcm, dm without the clinical image, cm without the dermoscopic one.

How well it is known: inputs, outputs and sampling; the optimisation and the exact weights are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.fit.heads import probabilities
from dermsearch.fit.system import LinearHeads, MetadataSettings, Outputs, Shape, Sight, System
from dermsearch.pretext.base import Batch

GROUPS = ("d", "c", "dc", "dm", "cm", "dcm")


class InceptionCombined(System):
    """Heads for all subsets of two images and metadata."""

    name = "inception_combined"
    composes = True
    own: ClassVar = {
        "optimizer": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "constant", "epochs": 30, "batch": 24,
    }  # fmt: skip

    class Config(MetadataSettings):
        """Without metadata there are the groups d, c and dc alone."""

    @property
    def answer(self) -> str:  # type: ignore[override]
        return "dcm" if self.columns else "dc"

    def build(self, shape: Shape) -> nn.Module:
        return CombinedNetwork(shape)

    def views(self, size: int) -> tuple[View, View]:
        return (View(size, scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.5, vflip=0.5, rotate=30.0),) * 2

    def plan_epoch(self, epoch: int, pool: Any, count: int) -> dict[str, np.ndarray]:
        first = next(iter(pool.values()))
        truth = [first.labels(label, np.arange(len(first))) for label in self.setting.counts]
        units = class_covering(truth, count, np.random.default_rng([self.setting.seed, epoch, 24]))
        return dict.fromkeys(pool, units)

    def objective(self, said: Outputs, truth: Tensor, seen: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        losses = {group: class_weighted(logits, truth) for group, logits in said.groups.items()}
        return torch.stack(list(losses.values())).sum(), losses

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        said, (d, c) = self.said(batches), (batches[m].there for m in self.modalities)
        of = torch.where(d & c, 2, torch.where(d, 0, 1))
        if self.columns:
            of = of + 3 * self.table(batches).any(1)
        by_group = [probabilities(said.groups[g], self.setting.counts) for g in GROUPS[: len(said.groups)]]
        rows = torch.arange(len(of), device=of.device)
        return {label: torch.stack([each[label] for each in by_group])[of, rows] for label in self.setting.counts}


class CombinedNetwork(nn.Module):
    """A linear head of every label on every subset of the inputs that holds an image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        of = {"d": shape.width, "c": shape.width, "m": shape.table}
        groups = GROUPS if shape.table else GROUPS[:3]
        self.heads = nn.ModuleDict({g: LinearHeads(sum(of[part] for part in g), shape.classes) for g in groups})

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        of = {"d": d.features, "c": c.features, "m": table.to(d.features)}
        return Outputs({g: heads(torch.cat([of[part] for part in g], 1)) for g, heads in self.heads.items()})


def class_covering(truth: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """So many cases, one for every class of every label in turn, each drawn from all that are of the class."""
    members = [np.flatnonzero(t == c) for t in truth for c in np.unique(t[t >= 0])]
    turn = np.arange(count) % len(members)
    size = np.array([len(each) for each in members])[turn]
    drawn = (rng.random(count) * size).astype(np.int64)
    return np.array([members[i][j] for i, j in zip(turn, drawn, strict=True)])


def class_weighted(logits: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Mean over labels of the cross-entropy in which each class that stands in the global batch weighs the same."""
    terms, present = [], []
    for x, t in zip(logits, truth.T, strict=True):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        classes = torch.arange(x.shape[1], device=t.device)
        cases = world.reduce_sum((t[:, None] == classes).sum(0))  # `one_hot` would wait for the device
        weights = 1 / cases.clamp(min=1).to(x)
        present.append((cases > 0).sum())
        total = F.cross_entropy(x, t, weights, ignore_index=-1, reduction="sum")
        terms.append(total / present[-1].clamp(min=1))
    labels = (torch.stack(present) > 0).sum().clamp(min=1) / world.size()
    return torch.stack(terms).sum() / labels
