"""SwAV: tell from one crop of an image to which prototypes another crop of it is assigned. (Caron et al. 2020)

Views   two large crops and `local` small ones, each with flip, strong jitter, grayscale and blur.
Heads   backbone -> linear, BatchNorm, ReLU, linear -> unit vectors; their scores are the products with the
        prototypes, unit vectors too and a linear layer without bias. The backbone is handed on.
Codes   of the large crops, without gradient: Sinkhorn's iterations turn the scores of the global batch into shares
        in the prototypes, so that each image's sum to one and every prototype has as many images as any other.
Loss    mean cross-entropy between a code and the softmax of every other crop's scores.
Queue   embeddings of earlier large crops, which stand beside the batch while its codes are made: a batch with fewer
        images than there are prototypes cannot be dealt evenly.

Every process gathers the large crops' embeddings and makes the codes of the whole batch from them, as one process
would. lightly's loss sums over processes inside its iterations, which rounds otherwise for each number of them, and
takes the exponential of scores as they are; its prototypes have a bias, which a unit vector has no use for.
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
from dermsearch.errors import UserError
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.views import contrastive
from dermsearch.words import many


class SwAV(Task):
    """Swapped prediction of online cluster assignments."""

    name = "swav"
    train_defaults: ClassVar = {
        "optimizer": "lars",
        "lr": 0.6,
        "lr_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1e-6,
        "schedule": "cosine",
        "warmup": 0.0,
        "final_lr": 0.001,
    }

    class Config(Settings):
        """`prototypes`: a few hundred for 20,000 images, the authors' 3,000 for a million.

        Batch and queue together must hold as many images; by default the queue makes it twice as many.
        A loss that stays at the logarithm of `prototypes` has learnt nothing: a smaller `epsilon`, 0.03, may help.
        """

        prototypes: int = Field(256, ge=2, le=1_000_000)  # a few hundred for 20,000 images
        out: int = Field(128, ge=2, le=65536)  # width of what is assigned
        temperature: float = Field(0.1, gt=0, le=10)  # of the guess
        epsilon: float = Field(0.05, gt=0, le=10)  # the smaller, the closer is a code to a single prototype
        iterations: int = Field(3, ge=1, le=1000)  # in which codes are made even
        queue: int | None = Field(None, ge=0, le=10_000_000)  # images
        queue_from: float = Field(0.05, ge=0, lt=1)  # share of the steps without it, while embeddings still jump
        frozen_epochs: int = Field(1, ge=0, le=100_000)  # in which the prototypes stay where they began
        local: int = Field(6, ge=0, le=64)  # small crops
        scale: float = Field(0.14, ge=0.05, le=1)  # share of the image: large crops take more, small ones less

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.crops = [contrastive(setting.size, config.scale)] * 2
        self.crops += [contrastive(local_side(setting.size), 0.05, config.scale)] * config.local
        self.head = mlp(setting.dim, setting.dim, config.out, norm=True)
        self.prototypes = nn.Linear(config.out, config.prototypes, bias=False)
        self.queue: Tensor
        self.register_buffer("queue", torch.zeros(2, queued(config, setting.batch), config.out))  # newest first
        self.new: Tensor | None = None  # (2, B, out) embeddings of the step under way

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """There must be images enough to deal to the prototypes."""
        queue = queued(config, setting.batch)
        if setting.batch + queue < config.prototypes:
            raise UserError(
                f"prototypes: must be at most batch and queue together, {setting.batch} + {queue}, "
                f"not {config.prototypes}"
            )
        if queue >= setting.batch * setting.steps:
            raise UserError(
                f"queue: must be below {setting.batch * setting.steps}, what {many(setting.steps, 'step')} put into "
                f"it, not {queue}" + "; lower prototypes" * (config.queue is None)
            )

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Every crop forward and backward."""
        return 2 + config.local * (local_side(size) / size) ** 2

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def loss(self, batch: Batch) -> Loss:
        c = self.config
        crops = batch.views(self.crops, "crop")
        features = torch.cat([self.backbone(torch.cat(alike)) for alike in (crops[:2], crops[2:]) if alike])
        z = self.head(features)  # in one batch, as the authors have it: one BatchNorm over crops of both sizes
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1).unflatten(0, (len(crops), -1))
            scores = self.prototypes(z)  # (crops, b, prototypes)
            self.new = world.gather(z[:2].transpose(0, 1)).transpose(0, 1)
            codes, used = self.codes(batch.step)
            value = swapped_loss(codes[:, world.mine(len(batch.units))], scores, c.temperature)
        first, second = codes.argmax(2)
        return Loss(value, features[: len(crops[0])], {"agreement": (first == second).float().mean(), "used": used})

    @torch.no_grad()
    def codes(self, step: int) -> tuple[Tensor, Tensor]:
        """(2, B, prototypes) codes of the global batch, and how many of the prototypes it uses, as a share."""
        assert self.new is not None
        rows, batch = self.new, self.new.shape[1]
        if step * batch >= self.queue.shape[1] and step >= self.config.queue_from * self.setting.steps:
            rows = torch.cat([rows, self.queue.to(rows.dtype)], 1)
        scores = self.prototypes(rows)
        mean = (scores[:, :batch] / self.config.temperature).softmax(2).mean((0, 1))
        used = torch.special.entr(mean).sum().exp() / len(mean)
        return sinkhorn(scores, self.config.epsilon, self.config.iterations)[:, :batch], used

    def after_backward(self, step: int) -> None:
        if step < self.config.frozen_epochs * self.setting.steps // self.setting.epochs:
            self.prototypes.weight.grad = None

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        assert self.new is not None
        self.queue.copy_(torch.cat([self.new.to(self.queue.dtype), self.queue], 1)[:, : self.queue.shape[1]])
        self.new = None

    after_micro = after_step


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes (..., rows, prototypes) of scores: each iteration makes the prototypes' sums equal, then the rows' one.

    In logarithms, because the exponential of a score over a small epsilon leaves the range of a float32 at both ends.
    """
    code = scores / epsilon
    for _ in range(iterations):
        code = code.log_softmax(-2).log_softmax(-1)
    return code.exp()


def swapped_loss(codes: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of codes (2, b, K) with the scores (crops, b, K) of every crop but the code's own."""
    each = -torch.einsum("ibk,vbk->iv", codes, (scores / temperature).log_softmax(2)) / scores.shape[1]
    others = 1 - torch.eye(*each.shape, dtype=each.dtype, device=each.device)
    return (each * others).sum() / others.sum()


def queued(config: SwAV.Config, batch: int) -> int:
    """Images in the queue: by default as many batches as bring two images to every prototype."""
    return batch * max(0, math.ceil(2 * config.prototypes / batch) - 1) if config.queue is None else config.queue
