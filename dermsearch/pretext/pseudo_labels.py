"""SM3's second task: as many clusterings of the cases as they have labels, learnt as if they were those. (Wang et al.)

Views   one of each image: resized crop, flip, strong jitter now and then; drawn for each modality alone.
Heads   the encoders' features side by side -> an embedding for each label, which see one another (`relation`)
        -> a prototype for each class of the label. The heads are handed on, see `LabelHeads`.
Memory  every case's embeddings: `fresh`, made anew of whole images for each clustering, without dropout; or `stale`,
        as the batches of the last epoch left them.
Epoch   at its start (of every `every`-th) spherical k-means, for each label with as many clusters as that has classes;
        the centroids become the prototypes, the clusters the cases' labels for the epoch.
Loss    cross-entropy with them, mean over labels.

Only the number of classes is read of a label. Which cluster is called what may change with every clustering, so two
are compared by their mutual information alone. The encoders stay as they are (`frozen`), BatchNorm's statistics too,
which the authors' first pass moves. A case without one of its images takes part in nothing.

The paper's own: memory stale. From warm restarts large clusters grow, epoch by epoch; random ones keep them even.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.models.artifact import HEADS, Part
from dermsearch.models.kmeans import mutual_information, spherical_kmeans
from dermsearch.models.relations import ATTENTIVE, LabelHeads
from dermsearch.numbers import uniforms
from dermsearch.pretext.base import Batch, JointTask, Loss, Setting, Settings, Whole


class PseudoLabels(JointTask):
    """Clusters of cases, label by label, as classes."""

    name = "pseudo_labels"
    version = 2
    indexed = True
    train_defaults: ClassVar = {
        "optimizer": "adamw",
        "lr": 1e-4,
        "lr_batch": 256,
        "weight_decay": 0.01,
        "schedule": "constant",
        "warmup": 0.0,
    }

    class Config(Settings):
        """`unit` clusters and scores embeddings of length one; those of a LayerNorm are all of one length anyway.

        `dropout` is for msa, tel and te, `feedforward` for the last two, `depth` for te.
        """

        relation: Literal["no_proj", "proj", "msa", "tel", "te"] = "tel"  # how labels see one another
        width: int = Field(512, ge=2, le=65536)  # of a label's embedding
        attention_heads: int = Field(1, ge=1, le=1024)  # of the relation
        feedforward: int = Field(128, ge=1, le=65536)  # width inside tel and te
        dropout: float = Field(0.1, ge=0, lt=1)  # of msa, tel and te
        depth: int = Field(2, ge=1, le=100)  # layers of te
        frozen: bool = True  # do encoders stay as they are?
        memory: Literal["fresh", "stale"] = "fresh"  # features of this epoch, or as they were when last seen
        restart: Literal["warm", "random"] = "random"  # from the last centroids, or from cases drawn anew
        unit: bool = False  # are embeddings of length one?
        temperature: float = Field(1.0, gt=0, le=1000)  # of the answers
        every: int = Field(1, ge=1, le=100_000)  # epochs
        iterations: int = Field(10, ge=1, le=10_000)  # of k-means

    def __init__(self, backbones: nn.ModuleDict, config: Any, setting: Setting) -> None:
        super().__init__(backbones, config, setting)
        if not setting.classes:
            raise UserError("pseudo_labels: makes a cluster for each class of the cases' labels; these cases have none")
        c, labels = config, len(setting.classes)
        self.view = View(
            setting.size,
            scale=(0.5, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=0.5,
            jitter=(0.8, 0.8, 0.8, 0.2),
            jitter_p=0.5,
        )
        self.heads = LabelHeads(
            setting.dim * len(backbones), list(setting.classes.values()), c.relation, c.width,
            c.attention_heads, c.feedforward, c.dropout, c.depth, setting.seed,
        )  # fmt: skip
        width, clusters = self.heads.width, sum(setting.classes.values())
        self.label: Tensor
        self.centroid: Tensor
        self.watched: Tensor
        self.memory: Tensor  # where it is stale; a fresh one need not be kept
        self.register_buffer("label", torch.full((labels, setting.units), -1))  # -1: the case lacks an image
        self.register_buffer("centroid", torch.zeros(clusters, width))  # label after label
        self.register_buffer("watched", torch.zeros(2))  # of the last clustering
        if c.memory == "stale":
            self.register_buffer("memory", torch.zeros(labels, setting.units, width))
        if c.frozen:
            backbones.requires_grad_(False)
        self.plain: Tensor | None = None  # features of all whole images, kept while the encoders do not move
        self.new: Tensor | None = None  # (labels, B, width) embeddings of the step under way

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """Attention's heads share the width evenly, and there are cases enough to begin clusters with."""
        if config.relation in ATTENTIVE and config.width % config.attention_heads:
            raise UserError(
                f"width: must be a multiple of attention_heads ({config.attention_heads}), not {config.width}"
            )
        most = max(setting.classes.values(), default=0)
        if most > setting.units:
            raise UserError(
                f"pseudo_labels: {most} clusters, one for each class of a label, need as many training cases; "
                f"there are {setting.units}"
            )

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """One view; of frozen encoders, forward alone."""
        return 1 / 3 if config.frozen else 1.0

    def train(self, mode: bool = True) -> PseudoLabels:
        """Frozen encoders are never in training mode."""
        super().train(mode)
        if self.config.frozen:
            self.backbones.eval()
        return self

    def begin(self, features: Whole) -> None:
        if self.config.memory == "stale":
            self.memory.copy_(self.embeddings(features))

    @torch.no_grad()
    def begin_epoch(self, epoch: int, features: Whole) -> None:
        if epoch % self.config.every:
            return
        complete = np.flatnonzero(np.logical_and.reduce([features.there(b) for b in self.backbones]))
        if not len(complete):
            raise UserError("pseudo_labels: no training case has an image of every modality")
        memory = self.memory if self.config.memory == "stale" else self.embeddings(features)
        self.cluster(memory[:, torch.from_numpy(complete).to(memory.device)], complete, epoch)

    @torch.no_grad()
    def embeddings(self, features: Whole) -> Tensor:
        """(labels, units, width) of all cases' whole images, in evaluation mode."""
        joined = self.plain
        if joined is None:
            joined = torch.cat([features(b, backbone) for b, backbone in self.backbones.items()], 1)
        if self.config.frozen:
            self.plain = joined
        self.heads.eval()
        found = self.heads.embed(joined)
        self.heads.train(self.training)
        return found

    @torch.no_grad()
    def cluster(self, x: Tensor, units: np.ndarray, epoch: int) -> None:
        """New pseudo-labels for these units of embeddings (labels, n, width), and prototypes to begin with."""
        c, at = self.config, torch.from_numpy(units).to(x.device)
        largest, alike = [], []
        if c.unit:
            x = F.normalize(x, dim=2)
        centroids = self.centroid.split(list(self.setting.classes.values()))
        for k, (rows, centroid) in enumerate(zip(x, centroids, strict=True)):
            start = centroid
            if c.restart == "random" or not epoch:
                order = uniforms(self.setting.seed, epoch, units, f"start/{k}", 1)[:, 0].argsort()
                start = rows[torch.from_numpy(np.resize(order, len(centroid))).to(x.device)]
            label, found = (first_process(t) for t in spherical_kmeans(rows, start, c.iterations))
            largest.append(label.bincount().max() / len(label))
            alike.append(mutual_information(self.label[k, at], label) if epoch else torch.zeros_like(largest[-1]))
            self.label[k, at] = label
            centroid.copy_(found)
            self.heads.prototypes[k].weight.copy_(found)  # type: ignore[operator]
        self.watched.copy_(torch.stack([torch.stack(largest).mean(), torch.stack(alike).mean()]))

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        features = {b: self.backbones[b](batches[b].view(self.view, "view")) for b in self.backbones}
        joined = torch.cat(list(features.values()), 1)
        with torch.autocast(joined.device.type, enabled=False):  # logits reach 22, where bf16 has steps of an eighth
            x = self.heads.embed(joined.to(torch.promote_types(joined.dtype, torch.float32)))
            logits = self.heads.logits(F.normalize(x, dim=2) if self.config.unit else x)
        if self.config.memory == "stale":
            self.new = world.gather(x.transpose(0, 1)).transpose(0, 1)
        units = next(iter(batches.values())).units
        everyone = self.label[:, torch.from_numpy(units).to(x.device, non_blocking=True)]  # (labels, B)
        truth = everyone[:, world.mine(len(units))]
        # The mean over the global batch's cases with all images; times the processes, because their mean is taken.
        count = (everyone[0] >= 0).sum().clamp(min=1) / world.size()
        each = [
            F.cross_entropy(z / self.config.temperature, t, ignore_index=-1, reduction="sum")
            for z, t in zip(logits, truth, strict=True)
        ]
        hits = [(z.detach().argmax(1) == t).sum() for z, t in zip(logits, truth, strict=True)]
        value = torch.stack(each).mean() / count / len(features)
        parts = {
            "accuracy": torch.stack(hits).sum() / len(hits) / count,
            "largest": self.watched[0],  # share of the cases in the largest cluster, mean over labels
            "agreement": self.watched[1],  # of a clustering with the one before it; 0 for the first
        }
        return {b: Loss(value, f, {} if i else parts) for i, (b, f) in enumerate(features.items())}

    @torch.no_grad()
    def after_step(self, batch: Mapping[str, Batch]) -> None:
        if self.new is not None:
            units = torch.from_numpy(next(iter(batch.values())).units).to(self.new.device, non_blocking=True)
            self.memory[:, units] = self.new.to(self.memory.dtype)
        self.new = None

    after_micro = after_step

    def hands_on(self) -> dict[str, Part]:
        return {HEADS: self.heads.part()}


def first_process(x: Tensor) -> Tensor:
    """The first process's tensor, on every one: unlike machines may round another way."""
    return world.reduce_sum(x if world.rank() == 0 else torch.zeros_like(x))
