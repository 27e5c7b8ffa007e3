"""DINO: agree with a slow copy of oneself about an image of which one sees another crop. (Caron et al. 2021)

Views   two large crops, of which the first is always and the second rarely blurred and sometimes solarised, and
        some small ones; flip, jitter, grayscale. The teacher sees the large ones alone.
Heads   backbone -> linear, GELU, linear, GELU, linear -> unit vector -> cosines with `out` directions; the same for
        student and teacher. The teacher is a moving average of the student, moved after the optimiser's step, and
        its backbone is what is handed on. Its BatchNorms, if it has any, have the statistics of its own forward
        passes over the large crops, so they fit its weights.
Loss    cross-entropy of the student's softmax with the teacher's, sharper and less its centre, averaged over the
        pairs of a teacher's and a student's crop that are not the same crop. The centre, a moving average of the
        teacher's outputs over the global batch, moves after it was used.

A transformer learns with stochastic depth, the student only. Watch `entropy` (of the teacher's answer to an image)
and `spread` (entropy of its mean answer), as shares of log `out`: all images evenly everywhere is entropy 1, all in
one place is spread 0.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import local_side
from dermsearch.models.centre import Centre
from dermsearch.models.momentum import Follower, momentum_at
from dermsearch.models.vit import StochasticDepth
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.views import MILDER, contrastive


class DINO(Task):
    """Self-distillation without labels."""

    name = "dino"
    train_defaults: ClassVar = {
        "optimizer": "adamw",
        "lr": 5e-4,
        "lr_batch": 256,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "schedule": "cosine",
        "warmup": 0.1,  # 10 epochs of 100
        "clip": 3.0,
    }

    class Config(Settings):
        """`momentum_encoder` is that of the first step, 1 that of the last. At 0.996 the teacher averages 250 steps:
        in a stage of fewer it hardly leaves its start, so lower it; for batches of 256 or less and many steps the
        authors advise 0.9995.

        `out`: the authors have 65536 for a million images. `teacher_temperature` is reached from `teacher_start`
        over the share `teacher_warmup` of the stage; higher than 0.07 is unstable. `frozen_epochs`: so long the last
        layer of the head stays as it is; at most all epochs but one.
        """

        out: int = Field(4096, ge=2, le=1_000_000)  # dimensions that teacher and student agree in
        hidden: int = Field(2048, ge=2, le=65536)  # width inside the head
        bottleneck: int = Field(256, ge=2, le=65536)  # width before the head's last layer
        momentum_encoder: float = Field(0.996, ge=0, le=1)  # of the teacher at the first step, 1 at the last
        local: int = Field(8, ge=0, le=64)  # small crops
        scale: float = Field(0.4, gt=0.05, lt=1)  # share of the image where small crops end and large ones begin
        temperature: float = Field(0.1, gt=0, le=10)  # the student's
        teacher_start: float = Field(0.04, gt=0, le=10)  # the teacher's temperature at first
        teacher_temperature: float = Field(0.04, gt=0, le=10)  # the teacher's, after its warm-up
        teacher_warmup: float = Field(0.3, ge=0, le=1)  # share of the stage in which it gets there
        centre_momentum: float = Field(0.9, ge=0, le=1)  # of the teacher's mean answer, which is taken off
        frozen_epochs: int = Field(1, ge=0, le=100_000)  # in which the head's last layer stays as it is
        depth_dropout: float = Field(0.1, ge=0, lt=1)  # stochastic depth of the last block of a transformer

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        side, c = setting.size, config
        kinds = {"blur": 1.0}, {"blur": 0.1, "solarize": 0.2}  # of the large crops
        self.large = [contrastive(side, c.scale, jitter=MILDER, **kind) for kind in kinds]
        self.small = [contrastive(local_side(side), 0.05, c.scale, jitter=MILDER)] * c.local
        self.head = Head(setting.dim, config.hidden, config.bottleneck, config.out)
        self.teacher = Follower(backbone, self.head)
        self.depth = StochasticDepth(backbone, config.depth_dropout, setting.seed)  # the student's alone
        self.centre = Centre(config.out, config.centre_momentum)

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Two large crops and the small ones; the teacher's forward passes over the large are a third of that."""
        return 2 + 2 / 3 + config.local * (local_side(size) / size) ** 2

    def loss(self, batch: Batch) -> Loss:
        images = by_image(batch.views(self.large, "large"))
        with torch.no_grad():
            features = self.teacher.parts[0](images)
            aims = apart(self.teacher.parts[1](features), 2)
        with self.depth.within(images, "large"):
            guesses = apart(self.head(self.backbone(images)), 2)
        return self.compare(aims, guesses + self.small_guesses(batch), features, batch.step)

    def small_guesses(self, batch: Batch) -> list[Tensor]:
        """The student's answers to the small crops."""
        if not self.small:
            return []
        images = by_image(batch.views(self.small, "small"))
        with self.depth.within(images, "small"):
            return apart(self.head(self.backbone(images)), len(self.small))

    def compare(self, aims: list[Tensor], guesses: list[Tensor], features: Tensor, step: int) -> Loss:
        """The loss over all pairs of different crops; the two large ones come first in both lists."""
        warmup = self.config.teacher_warmup * self.setting.steps
        temperature = ramp(step, warmup, self.config.teacher_start, self.config.teacher_temperature)
        answers = torch.stack(aims)
        centred = answers - self.centre.value
        parts = watch(centred, temperature)
        with torch.autocast(answers.device.type, enabled=False):
            codes = F.softmax(centred / temperature, dim=-1)
            value = crossed_loss(codes, torch.stack(guesses) / self.config.temperature)
            self.centre.update(answers.mean((0, 1)))
        return Loss(value, features[::2], parts)  # the first large crop of each image

    def after_backward(self, step: int) -> None:
        epochs = self.setting.epochs
        if step * epochs < min(self.config.frozen_epochs, epochs - 1) * self.setting.steps:
            self.head.last.weight.grad = None

    def after_step(self, batch: Batch) -> None:
        momentum = momentum_at(batch.step, self.setting.steps, self.config.momentum_encoder)
        self.teacher.follow([self.backbone, self.head], momentum)

    def handed_on(self) -> nn.Module:
        return self.teacher.parts[0]


class Head(nn.Module):
    """Cosines of a projection with learnt directions, in single precision at least.

    Not lightly's: its weight-normalised layer cannot be copied, and its gain, fixed at 1, is a parameter too many.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = nn.Linear(bottleneck, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.cosines(self.project(x))

    def project(self, x: Tensor) -> Tensor:
        """Unit vectors of the width of the bottleneck."""
        x = self.layers(x)
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)

    def cosines(self, z: Tensor) -> Tensor:
        """With every direction, whatever the length of its weights: linear in `z`."""
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z, F.normalize(self.last.weight, dim=1))


def crossed_loss(codes: Tensor, logits: Tensor) -> Tensor:
    """Mean cross-entropy of codes (t, b, out) with logits (s, b, out) of every crop but the code's own."""
    each = -torch.einsum("tbd,sbd->ts", codes, F.log_softmax(logits, dim=-1))
    each.fill_diagonal_(0)
    return each.sum() / ((each.numel() - len(codes)) * codes.shape[1])


def by_image(views: list[Tensor]) -> Tensor:
    """Views (b, ...) -> rows (b views, ...) image by image: a process's are then rows of the global batch's."""
    return torch.stack(views, 1).flatten(0, 1)


def apart(rows: Tensor, views: int) -> list[Tensor]:
    """What `by_image` put together."""
    return list(rows.unflatten(0, (-1, views)).unbind(1))


def ramp(step: int, steps: float, start: float, end: float) -> float:
    """From `start` to `end` in a straight line over so many steps, then `end`."""
    return end if step >= steps else start + (end - start) * step / steps


@torch.no_grad()
def watch(centred: Tensor, temperature: float) -> dict[str, Tensor]:
    """Entropy of the teacher's answers and of their mean over the global batch, as shares of the most there can be."""
    p = F.softmax(centred.float() / temperature, dim=-1)
    mean = world.reduce_sum(p.mean((0, 1))) / world.size()
    most = math.log(p.shape[-1])
    share = lambda p: (torch.special.entr(p).sum(-1).mean() / most).clamp(0, 1)  # noqa: E731
    return {"entropy": share(p), "spread": share(mean)}
