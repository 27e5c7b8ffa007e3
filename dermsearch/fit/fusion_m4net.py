"""FusionM4Net, first stage: three branches, whose logits are weighed on patients kept aside. (Tang et al. 2022)

Network pooled features of both images, and their sum -> 512, 128 (BatchNorm, Swish, dropout) -> heads: d, c, f.
Loss    0.33 x the mean over labels of the cross-entropy, of each branch.
Weights one for each branch, for all labels, in steps of 1/20: those with the best mean accuracy on the cases aside.
Answer  softmax of the weighted sum of logits, mean over six views: as it is, three flips, two quarter turns.

How well it is known: exactly. The authors search on their validation cases, and their search visits a few of its
points; this one visits all, on training patients that the network has not learnt from. Their averaging of weights has
no effect and is left out; pictures are normalised as the encoders know them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dermsearch import metrics
from dermsearch.data.views.augment import View
from dermsearch.fit.heads import probabilities
from dermsearch.fit.system import LinearHeads, Outputs, Shape, Sight, System, SystemSettings
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, Setting

BRANCHES = ("d", "c", "f")
STEPS = 20
TURNS = (  # of the pictures: dimensions that are flipped, quarter turns
    ((), 0), ((3,), 0), ((2,), 0), ((2, 3), 0), ((), 1), ((), 3),
)  # fmt: skip


class FusionSettings(SystemSettings):
    """`aside: 0` and `search: none` weigh the branches alike."""

    aside: float = Field(0.2, ge=0, lt=0.9, description="share of the training cases that the weights are searched on")
    search: Literal["accuracy", "auc", "none"] = Field("accuracy", description="what the weights are searched for")
    views: bool | None = Field(None, description="six views of a picture to predict by; null: in its own recipe")
    fuse: Literal["sum", "linear"] = Field("sum", description="linear: a layer aligns the clinical features first")


class FusionM4Net(System):
    """Both images and their sum, weighed."""

    name = "fusion_m4net"
    answer = "f"
    together = True
    own: ClassVar = {
        "optimizer": "adamw", "lr": 3e-5, "weight_decay": 0.0, "schedule": "cosine", "epochs": 250, "batch": 32,
    }  # fmt: skip
    weights: Tensor  # of d, c and f

    class Config(FusionSettings):
        """Nothing more."""

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        self.register_buffer("weights", torch.full((3,), 1 / 3, dtype=torch.float64))
        self.turns = TURNS if config.views or (config.views is None and config.recipe == "own") else TURNS[:1]

    def build(self, shape: Shape) -> nn.Module:
        return ThreeBranches(shape, self.config.fuse == "linear")

    def views(self, size: int) -> tuple[View, View]:
        moved = {"scale": (0.5, 1.0), "ratio": (0.9, 1.1), "flip": 0.5, "vflip": 0.5, "rotate": 45.0}
        return View(size, **moved), View(size, **moved, jitter=(0.2, 0.2, 0.0, 0.0), jitter_p=0.25)  # type: ignore[arg-type]

    @classmethod
    def aside(cls, config: Any) -> float:
        return config.aside

    def objective(self, said: Outputs, truth: Tensor, seen: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        value, parts = super().objective(said, truth, seen, step)
        return 0.33 * value, parts

    def shown(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """(b, views, classes) logits of every branch and label."""
        pixels = {m: batch.whole() for m, batch in batches.items()}
        table, by_view = self.table(batches), []
        for flips, quarter in self.turns:
            turned = {m: torch.rot90(x.flip(flips) if flips else x, quarter, (2, 3)) for m, x in pixels.items()}
            by_view.append(self.network(*self.look(batches, turned), table).groups)
        return {
            f"{branch}/{label}": torch.stack([groups[branch][k].double() for groups in by_view], 1)
            for branch in BRANCHES
            for k, label in enumerate(self.setting.counts)
        }

    def calibrate(self, predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> None:
        if self.config.search == "none":
            return
        logits = {label: torch.stack([predicted[f"{b}/{label}"] for b in BRANCHES]) for label in truth}
        found = searched(logits, truth, self.setting.counts, self.config.search)
        self.weights.copy_(torch.tensor(found, dtype=self.weights.dtype))

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        return self.weighed(self.shown(batches))

    def weighed(self, shown: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities, from every branch's logits."""
        logits = {label: torch.stack([shown[f"{b}/{label}"] for b in BRANCHES]) for label in self.setting.counts}
        return {label: fused(x, self.weights, {label: self.setting.counts[label]}) for label, x in logits.items()}


class ThreeBranches(nn.Module):
    """Perceptrons and heads on both images' features, and on their sum."""

    def __init__(self, shape: Shape, aligned: bool = False) -> None:
        super().__init__()
        self.align = nn.Linear(shape.width, shape.width) if aligned else nn.Identity()
        self.branches = nn.ModuleDict({b: perceptron(shape, f"fusion_m4net/{b}") for b in BRANCHES})
        self.heads = nn.ModuleDict({b: LinearHeads(128, shape.classes) for b in BRANCHES})

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        of = {"d": d.features, "c": c.features, "f": d.features + self.align(c.features)}
        return Outputs({b: self.heads[b](self.branches[b](x)) for b, x in of.items()})


def perceptron(shape: Shape, place: str) -> nn.Sequential:
    """Features -> 512 -> 128."""
    return nn.Sequential(
        nn.Linear(shape.width, 512),
        nn.BatchNorm1d(512),
        nn.SiLU(),
        shape.dropout(0.3, f"{place}/hidden"),
        nn.Linear(512, 128),
        nn.BatchNorm1d(128),
        nn.SiLU(),
        shape.dropout(0.3, f"{place}/out"),
    )


def fused(logits: Tensor, weights: Tensor, counts: Mapping[str, Sequence[int]]) -> Tensor:
    """(branches, b, views, classes) logits of one label -> (b, classes): weighed, soft-maxed, mean over the views."""
    summed = (weights.to(logits)[:, None, None, None] * logits).sum(0)
    (each,) = probabilities([summed.flatten(0, 1)], counts).values()
    return each.unflatten(0, summed.shape[:2]).mean(1)


def triples(steps: int = STEPS) -> list[tuple[float, float, float]]:
    """All weights of three branches in whole steps, none zero, that come to 1."""
    whole = range(1, steps - 1)
    return [(i / steps, j / steps, (steps - i - j) / steps) for i in whole for j in whole if i + j < steps]


def searched(
    logits: Mapping[str, Tensor], truth: Mapping[str, Tensor], counts: Mapping[str, Sequence[int]], by: str
) -> tuple[float, float, float]:
    """The weights of d, c and f with the best mean over labels of accuracy or AUC; of equals the first."""
    best, most = (1 / 3, 1 / 3, 1 / 3), -np.inf
    for triple in triples():
        weights = torch.tensor(triple, dtype=torch.float64)
        told = {label: fused(x, weights, {label: counts[label]}).numpy() for label, x in logits.items()}
        worth = mean_worth(told, {label: t.numpy() for label, t in truth.items()}, by)
        if worth > most + 1e-12:
            best, most = triple, worth
    return best


def mean_worth(told: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], by: str) -> float:
    """Mean over labels that are known of any case: the share of right classes, or the AUC."""
    found = []
    for label, probability in told.items():
        known = truth[label] >= 0
        if by == "auc" and known.any():
            found.append(metrics.whole("auc", truth[label], probability, np.ones((len(known), 1)))[0])
        elif known.any():
            found.append((probability.argmax(1) == truth[label])[known].mean())
    return float(np.nanmean(found)) if len(found) else -np.inf
