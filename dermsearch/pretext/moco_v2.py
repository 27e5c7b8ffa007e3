"""MoCo v2: tell the other view of an image from a queue of earlier images. (Chen et al. 2020)

Views   query and key from one family: resized crop, flip, jitter, grayscale, blur.
Heads   backbone -> linear, ReLU, linear (no BatchNorm) -> unit vectors. The key network is a moving average of
        the query network, moved before it is used; the query backbone is what is handed on.
Loss    cross-entropy of [q.k, q.queue] / temperature against the first, one direction.
Queue   random unit vectors at the start, first in first out, whole global batches.

BatchNorm would tell a key its query if both were normalised in one batch. The authors shuffle keys over GPUs;
here keys are encoded in `shuffle` random groups of the global batch, each with its own statistics, and the
queries with those of the whole batch, so one process and many compute the same. Every process can render
every unit's view, so the shuffle moves no image; the finished keys are summed into place.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.models.heads import mlp
from dermsearch.models.momentum import Follower
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.pretext.views import MILD, contrastive


class MoCoV2(Task):
    """Momentum contrast with a queue."""

    name = "moco_v2"
    version = 3
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 0.03,
        "lr_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 0.0,
    }

    class Config(Settings):
        """`queue` is best well below the number of images: an image must not meet itself in it."""

        temperature: float = Field(0.2, gt=0, le=10)  # smaller: the nearest wrong images count more
        momentum_encoder: float = Field(0.999, ge=0, le=1)  # of the slow copy that fills the queue
        queue: int = Field(4096, ge=4, le=10_000_000)  # images to tell apart from; whole batches, fewer than there are
        out: int = Field(128, ge=2, le=65536)  # width of what is contrasted
        shuffle: int = Field(4, ge=1, le=1024)  # groups in which keys are normalised
        scale: float = Field(0.2, gt=0, le=1)  # smallest share of the image that a crop takes

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.view = contrastive(setting.size, config.scale, jitter=MILD)
        self.head = mlp(setting.dim, setting.dim, config.out)
        self.key = KeyNetwork(backbone, self.head)
        queue = torch.randn(config.queue, config.out, generator=torch.Generator().manual_seed(setting.seed))
        self.queue: Tensor
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.at: Tensor
        self.register_buffer("at", torch.zeros((), dtype=torch.long))
        self.keys: Tensor | None = None  # of the step under way, on their way into the queue

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """The queue takes whole batches and must leave an image's own older views behind."""
        if config.queue % setting.batch:
            raise UserError(f"queue: {config.queue} is not a multiple of the batch, {setting.batch}")
        if config.queue >= setting.units:
            raise UserError(
                f"queue: {config.queue} must be smaller than the {setting.units} training images, "
                "or an image meets itself in it as a negative"
            )

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """A query forward and backward, a key forward: a third of that."""
        return 4 / 3

    def before_step(self, step: int) -> None:
        self.key.follow([self.backbone, self.head], self.config.momentum_encoder)

    def loss(self, batch: Batch) -> Loss:
        features = self.backbone(batch.view(self.view, "query"))
        q = F.normalize(self.head(features).float(), dim=1)  # (b, out)
        self.keys = self.encode_keys(batch)  # (B, out), on every process
        positive = self.keys[world.mine(len(self.keys))]
        value, logits = info_nce(q, positive, self.queue, self.config.temperature)
        hits = (logits.detach().argmax(1) == 0).float().mean()
        return Loss(value, features, {"accuracy": hits})

    def groups(self, batch: Batch) -> list[np.ndarray]:
        """The rows of the global batch whose keys this process encodes, group by group."""
        count = min(self.config.shuffle, max(1, len(batch.units) // 2))
        return np.array_split(batch.permutation("shuffle"), count)[world.rank() :: world.size()]

    def asks(self, batch: Batch) -> list[np.ndarray]:
        """Its own images, then those of every group: of one process they are at hand."""
        groups = self.groups(batch) if world.size() > 1 else []
        return [batch.own, *(batch.units[rows] for rows in groups)]

    @torch.no_grad()
    def encode_keys(self, batch: Batch) -> Tensor:
        """Keys of the whole global batch, each encoded in its shuffled group; groups are dealt to the processes."""
        keys = torch.zeros(len(batch.units), self.config.out, device=self.queue.device)
        for rows in self.groups(batch):
            views = batch.view(self.view, "key", batch.units[rows])
            keys[batch.on_device(rows)] = F.normalize(self.key(views).float(), dim=1)
        return world.reduce_sum(keys)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        assert self.keys is not None
        rows = torch.arange(len(self.keys), device=self.at.device) + self.at  # no step waits to be told where that is
        self.queue.index_copy_(0, rows, self.keys)
        self.at.add_(len(self.keys)).remainder_(len(self.queue))
        self.keys = None

    after_micro = after_step


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of [q.k, q.queue] / temperature against the first, and those logits (b, 1 + K)."""
    with torch.autocast(q.device.type, enabled=False):  # similarities keep the precision of their vectors
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device)), logits


class KeyNetwork(Follower):
    """The slow copy of backbone and head: BatchNorm has statistics of its own group only."""

    local_batchnorm = True

    def __init__(self, *leaders: nn.Module) -> None:
        super().__init__(*leaders)
        for module in self.modules():  # always normalises by its batch: running statistics would differ by process
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
