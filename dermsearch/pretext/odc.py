"""ODC, online deep clustering: classify images into clusters that move a little with every step. (Zhan et al. 2020)

Views   resized crop, flip, two degrees of rotation, strong jitter, grayscale.
Heads   backbone -> neck (256-d, non-negative) -> classifier over K clusters.
Banks   a unit vector and a label per image, a centroid per cluster; one k-means over all images at the start.
Step    loss with the labels from before the step; then the batch's vectors move half-way to their new features
        and take the nearest centroid's label; every `recompute` steps all centroids become member means; clusters
        below `small` members are dissolved into the nearest and refilled with half of the largest; classes weigh
        one over the square root of their size.
Every process keeps the same banks: a step's features are gathered, and all that follows is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task
from dermsearch.words import many


class ODC(Task):
    """Joint clustering and classification with memories."""

    name = "odc"
    version = 4
    replacement = True
    indexed = True
    waits = "which clusters are too small decides what is done"
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 0.06,
        "lr_batch": 512,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "warmup": 0.0,
    }

    class Config(Settings):
        """`clusters` of about a hundred images each, as the authors have it.

        None is left below `small` if there are twice as many images for each.
        """

        clusters: int = Field(128, ge=2, le=1_000_000)  # about a hundred images each, as the authors have it
        small: int = Field(20, ge=1, le=100_000)  # a cluster with fewer images is dissolved and filled anew
        memory_momentum: float = Field(0.5, ge=0, le=1)  # of an image's remembered feature, the new one's share
        recompute: int = Field(10, ge=1, le=1_000_000)  # steps between two computations of the centroids
        reweight: float = Field(0.5, ge=0, le=2)  # power of one over the cluster size
        hidden: int = Field(512, ge=2, le=65536)  # width inside the neck
        feature: int = Field(256, ge=2, le=65536)  # width of what is clustered
        dropout: float = Field(0.5, ge=0, lt=1)  # in the neck

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        c = config
        self.view = View(
            setting.size,
            scale=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=0.5,
            rotate=2.0,
            jitter=(0.4, 0.4, 1.0, 0.5),
            jitter_p=1.0,
            gray=0.2,
        )
        self.neck = nn.Sequential(
            nn.Linear(setting.dim, c.hidden),
            nn.BatchNorm1d(c.hidden, affine=False, momentum=0.001),
            nn.ReLU(),
            GlobalDropout(c.dropout, setting.seed),
            nn.Linear(c.hidden, c.feature),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(c.feature, c.clusters)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.bank: Tensor
        self.label: Tensor
        self.centroid: Tensor
        self.register_buffer("bank", torch.zeros(setting.units, c.feature))
        self.register_buffer("label", torch.zeros(setting.units, dtype=torch.long))
        self.register_buffer("centroid", torch.zeros(c.clusters, c.feature))
        self.new: Tensor | None = None  # (B, feature) of the step under way

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """There must be images enough that no cluster has to be small."""
        if config.clusters * config.small > setting.units:
            raise UserError(
                f"clusters: {config.clusters} clusters of at least {many(config.small, 'image')} (small) need "
                f"{config.clusters * config.small} training images; there are {setting.units}"
            )

    def begin(self, features: Callable[[nn.Module], Tensor]) -> None:
        """One k-means over all images, once."""
        found = F.normalize(features(nn.Sequential(self.backbone, self.neck)), dim=1)
        self.bank.copy_(found)
        self.label.copy_(kmeans(found, self.config.clusters, self.setting.seed))
        self.recompute_centroids()
        self.refill_small_clusters()

    def loss(self, batch: Batch) -> Loss:
        features = self.backbone(batch.view(self.view, "view"))
        hidden = self.neck(features)
        logits = self.classifier(hidden).float()
        self.new = world.gather(F.normalize(hidden.detach().float(), dim=1))
        weight = class_weights(self.counts(), self.config.reweight)
        everyone = self.label[batch.on_device(batch.units)]  # (B,)
        truth = everyone[world.mine(len(everyone))]
        each = F.cross_entropy(logits, truth, weight=weight, reduction="sum")
        # The weighted mean over the global batch; times the processes, because their mean is taken.
        value = each / weight[everyone].sum() * world.size()
        hits = (logits.detach().argmax(1) == truth).float().mean()
        return Loss(value, features, {"accuracy": hits})

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        assert self.new is not None
        # Drawn with replacement: an image may stand in a batch twice.
        first = np.unique(batch.units, return_index=True)
        units, order = (torch.from_numpy(x).to(self.bank.device, non_blocking=True) for x in first)
        m = self.config.memory_momentum
        moved = F.normalize((1 - m) * self.bank[units] + m * self.new[order], dim=1)
        self.bank[units] = moved
        self.label[units] = (moved @ self.centroid.T).argmax(1)
        if (batch.step + 1) % self.config.recompute == 0:
            self.recompute_centroids()
        self.refill_small_clusters()
        self.new = None

    after_micro = after_step

    def counts(self) -> Tensor:
        """Images per cluster."""
        none = torch.zeros(self.config.clusters, dtype=torch.long, device=self.label.device)
        return none.scatter_add_(0, self.label, torch.ones_like(self.label))  # bincount waits for the device

    def recompute_centroids(self, only: list[int] | None = None) -> None:
        """Member means, not normalised; a cluster without members keeps its centroid."""
        order = self.label.argsort(stable=True)  # cluster by cluster
        members = order.split(self.counts().tolist())
        for c in range(self.config.clusters) if only is None else only:
            if len(members[c]):
                self.centroid[c] = self.bank[members[c]].mean(0)

    def refill_small_clusters(self) -> None:
        """Dissolve clusters below `small` into their nearest neighbours, refill them from the largest."""
        counts = self.counts()
        emptied = (counts < self.config.small).nonzero()[:, 0].tolist()
        if not emptied:
            return
        normal = (counts >= self.config.small).nonzero()[:, 0]
        if len(normal):
            members = torch.isin(self.label, torch.tensor(emptied, device=self.label.device)).nonzero()[:, 0]
            nearest = (self.bank[members] @ self.centroid[normal].T).argmax(1)
            self.label[members] = normal[nearest]
            self.recompute_centroids(normal[nearest].unique().tolist())
        for empty in emptied:
            largest = int(self.counts().argmax())
            members = (self.label == largest).nonzero()[:, 0]
            second = halves(self.bank[members], self.config.small)
            self.label[members[second]] = empty
            self.recompute_centroids([largest, empty])

    def options(self) -> dict[str, dict[str, float]]:
        return {"classifier": {"momentum": 0.0}}


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Proportional to one over size to the power, summing to one; an empty cluster counts as one image."""
    weight = counts.clamp(min=1).float() ** -power
    return weight / weight.sum()


def kmeans(x: Tensor, clusters: int, seed: int) -> Tensor:
    """Labels of scikit-learn's k-means, 20 iterations."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads would add up in the order in which they finish
        found = KMeans(clusters, n_init=1, max_iter=20, random_state=seed).fit(x.cpu().numpy())
    return torch.from_numpy(found.labels_.astype(np.int64)).to(x.device)


def halves(x: Tensor, small: int) -> Tensor:
    """Which rows go to the second of two clusters. Where 2-means leaves one below `small`, the line between its
    centres is cut in the middle of the rows."""
    second = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    across = torch.zeros_like(x[0])
    if len(x.unique(dim=0)) > 1:
        second = kmeans(x, 2, 0) == 1
        across = x[second].mean(0) - x[~second].mean(0)
    if min(int(second.sum()), int((~second).sum())) < small:
        order = (x @ across).argsort(stable=True)
        second = torch.zeros_like(second).index_fill_(0, order[len(x) // 2 :], True)
    return second
