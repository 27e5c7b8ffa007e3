"""AMFAM: an adversary makes both images' features alike, and the fused map must paint both images. (Wang et al. 2022)

Network both last maps side by side -> pooled, dropout, 512, ReLU, dropout -> a linear head for each label (f);
        -> two decoders, which paint the clinical and the dermoscopic image again.
Map     where an encoder looks: its last map summed over channels, from 0 to 1, enlarged; without gradient.
Loss    mean over labels of the cross-entropy, plus 0.4 x the two painting errors, weighted by exp of the map, plus
        0.8 x how well a discriminator tells which modality a pooled feature is of. Its gradient reaches the encoders
        reversed, times a coefficient that climbs from 0 to 1.
Batch   cases in inverse proportion to how frequent their diagnosis is.
Answer  by f.

How well it is known: network and losses by code that is very probably the authors'. There the map's 0 and 1 are the
batch's (`over: batch`), the coefficient is tanh(n / 200) at step n, and both images go through one encoder.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.fit.heads import mean_loss
from dermsearch.fit.system import LinearHeads, Outputs, Shape, Sight, System, SystemSettings, last_map
from dermsearch.models.alignment import reversed_gradient
from dermsearch.pretext.base import Batch
from dermsearch.pretext.batch import epoch_order
from dermsearch.pretext.joint_supervised import chances

WIDTHS = {"whole": (128, 64, 32), "half": (64, 32, 16)}


class AMFAM(System):
    """The adversarial network with attention-weighted reconstruction."""

    name = "amfam"
    composes = True
    answer = "f"
    own: ClassVar = {
        "optimizer": "adamw", "lr": 1e-5, "weight_decay": 1e-4, "schedule": "constant", "epochs": 150, "batch": 8,
    }  # fmt: skip

    class Config(SystemSettings):
        """The authors' weights. `decoder: half` has half as many channels, and costs a third."""

        painting: float = Field(0.4, ge=0, le=1000, description="weight of both painting errors")
        adversary: float = Field(0.8, ge=0, le=1000, description="weight of the discriminator's loss")
        climb: Literal["share", "steps"] = Field("share", description="of the coefficient: tanh(2.5 p) or tanh(n/200)")
        reversal: float = Field(1.0, ge=0, le=10, description="the coefficient's end; 0: the encoders are left alone")
        over: Literal["image", "batch"] = Field("image", description="what a map is scaled by")
        decoder: Literal["whole", "half"] = Field("whole", description="its channels")

    def build(self, shape: Shape) -> nn.Module:
        return FusedNetwork(shape, last_map(shape, self.name), WIDTHS[self.config.decoder])

    def views(self, size: int) -> tuple[View, View]:
        return (View(size, scale=(0.7, 1.0), flip=0.5, rotate=45.0),) * 2

    def plan_epoch(self, epoch: int, pool: Any, count: int) -> dict[str, np.ndarray]:
        first = next(iter(pool.values()))
        diagnosis = next(iter(self.setting.counts))
        drawn = chances(first.labels(diagnosis, np.arange(len(first)))) if self.config.recipe == "own" else None
        return dict.fromkeys(pool, epoch_order(self.setting.seed, epoch, len(first), count, False, drawn))

    def before_step(self, step: int) -> None:
        c = self.config
        coefficient = c.reversal * climbed(step, self.setting.steps, c.climb)
        self.network.reversal.coefficient = coefficient  # type: ignore[union-attr]

    def sight(self, modality: str, pixels: Tensor, batch: Batch) -> Sight:
        mean, std = batch.statistics(pixels)
        return replace(super().sight(modality, pixels, batch), pixels=(pixels * std + mean).clamp(0, 1))

    def objective(
        self, said: Outputs, truth: Tensor, seen: tuple[Sight, Sight], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        d, c = seen
        classes = mean_loss(said.groups["f"], truth)[0]
        painted = [self.painting(said.extras[m], sight) for m, sight in (("d", d), ("c", c))]
        told = discrimination(said.extras["modality"], torch.cat([c.there, d.there]))
        painting = torch.stack(painted).sum()
        value = classes + self.config.painting * painting + self.config.adversary * told
        return value, {"classes": classes, "painting": painting, "adversary": told}

    def painting(self, painted: Tensor, sight: Sight) -> Tensor:
        """How far an image is from its painting, mean over the global batch's images that are there."""
        attention = enlarged(attended(sight.maps[-1], self.config.over), sight.pixels.shape[-1])
        each = painting_errors(painted, sight.pixels, attention) * sight.there
        return each.sum() / world.reduce_sum(sight.there.sum()).clamp(min=1) * world.size()


class FusedNetwork(nn.Module):
    """Classifier, painters and discriminator over both last maps."""

    def __init__(self, shape: Shape, level: int = -1, widths: tuple[int, ...] = WIDTHS["whole"]) -> None:
        super().__init__()
        channels, stride = shape.maps[level], shape.strides[level]
        self.level = level
        self.fused = nn.Linear(2 * channels, 512)
        self.before, self.after = shape.dropout(0.4, "amfam/before"), shape.dropout(0.4, "amfam/after")
        self.heads = LinearHeads(512, shape.classes)
        self.painters = nn.ModuleDict({m: Painter(2 * channels, widths, stride) for m in ("d", "c")})
        self.reversal = Reversal()
        self.discriminator = nn.Sequential(nn.Linear(channels, 256), nn.ReLU(), nn.Linear(256, 2))

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        maps = {"d": d.maps[self.level], "c": c.maps[self.level]}
        both = torch.cat([maps["c"], maps["d"]], 1)
        logits = self.heads(self.after(F.relu(self.fused(self.before(both.mean((2, 3)))))))
        if not self.training:
            return Outputs({"f": logits})
        painted = {m: painter(both, d.pixels.shape[-1]) for m, painter in self.painters.items()}
        pooled = torch.cat([maps["c"].mean((2, 3)), maps["d"].mean((2, 3))])
        return Outputs({"f": logits}, {**painted, "modality": self.discriminator(self.reversal(pooled))})


class Painter(nn.Module):
    """A map -> an image with values from 0 to 1: enlarged three times, then to the image's size."""

    def __init__(self, channels: int, widths: tuple[int, ...], stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, scale in zip((channels, *widths), widths, enlargements(stride), strict=False):
            layers += [nn.Upsample(scale_factor=scale), nn.Conv2d(before, after, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.larger = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.Conv2d(widths[-1], 3, 3, padding=1), nn.BatchNorm2d(3), nn.Sigmoid())

    def forward(self, maps: Tensor, size: int) -> Tensor:
        return self.last(F.interpolate(self.larger(maps), (size, size)))


class Reversal(nn.Module):
    """Nothing forward; the gradient times minus the coefficient backward."""

    coefficient = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return reversed_gradient(x, self.coefficient)


def enlargements(stride: int) -> tuple[int, int, int]:
    """Of the three steps, which together undo a stride: 4, 4, 2 of 32."""
    return {32: (4, 4, 2), 16: (4, 2, 2), 8: (2, 2, 2)}.get(stride, (2, 2, 1))


def climbed(step: int, steps: int, by: str) -> float:
    """The reversal's coefficient: by the share of the training that is over, or by steps as the authors count them."""
    return math.tanh(2.5 * step / max(1, steps)) if by == "share" else math.tanh(step / 200)


def attended(maps: Tensor, over: str) -> Tensor:
    """(b, c, h, w) -> (b, h, w) from 0 to 1: the sum over channels, scaled by the image's extremes or the batch's."""
    total = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).sum(1)
    if over == "image":
        low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    else:
        ends = world.gather(torch.stack([total.min(), total.max()])[None])
        low, high = ends[:, 0].min(), ends[:, 1].max()
    return (total - low) / (high - low).clamp(min=1e-12)


def enlarged(attention: Tensor, size: int) -> Tensor:
    """A map at the size of the image."""
    return F.interpolate(attention[:, None], (size, size), mode="bilinear", align_corners=False)


def painting_errors(painted: Tensor, image: Tensor, attention: Tensor) -> Tensor:
    """(b,) mean squared errors over pixels and channels, more where the encoder looks: times exp(attention)."""
    painted = painted.to(torch.promote_types(painted.dtype, torch.float32))
    return ((painted - image.to(painted)).square() * attention.to(painted).exp()).mean((1, 2, 3))


def discrimination(logits: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy of telling clinical features (the first half) from dermoscopic ones, of images that are there."""
    truth = torch.arange(2, device=logits.device).repeat_interleave(len(logits) // 2)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = F.cross_entropy(logits, truth, reduction="none") * there
    return each.sum() / world.reduce_sum(there.sum()).clamp(min=1) * world.size()
