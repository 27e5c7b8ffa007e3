"""GIIN: a graph over the labels of both images, in which dermoscopy hears the clinical image. (Fu et al. 2022)

Nodes   for every label and image: attention over the places of the image's map -> the map's mean under it -> 128.
Graph   labels of one image hear each other as strongly as they depend on one another among the training cases
        (Cramer's V); and each dermoscopic node hears its clinical twin (`direction`). Two layers.
Heads   d, c on the nodes before the graph, g on both of a label behind it, side by side.
Loss    mean over labels of the cross-entropy, summed over d, c and g.
Answer  by g.

How well it is known: by its abstract alone. Nodes, edges, layers and losses are our design.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch.data.views.augment import View
from dermsearch.fit.system import LinearHeads, Outputs, Shape, Sight, System, SystemSettings, last_map
from dermsearch.pretext.base import Whole

NODE = 128


class GIIN(System):
    """The graph-based network."""

    name = "giin"
    answer = "g"
    own: ClassVar = {
        "optimizer": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "cosine", "epochs": 50, "batch": 32,
    }  # fmt: skip

    class Config(SystemSettings):
        """`direction`: c2d, dermoscopic nodes hear clinical ones; d2c, the reverse."""

        direction: Literal["c2d", "d2c", "both"] = Field("c2d", description="who hears the other image")
        graph: Literal["cooccurrence", "identity"] = Field("cooccurrence", description="how labels hear one another")
        norm: Literal["row", "symmetric"] = Field("row", description="of the graph's edges")
        residual: bool = Field(False, description="does a layer add its input back?")
        stride: Literal[0, 8, 16, 32] = Field(0, description="of the map with the nodes' places; 0: the last one")

    def build(self, shape: Shape) -> nn.Module:
        c = self.config
        return GraphNetwork(shape, last_map(shape, self.name, c.stride), c.direction, c.norm, c.residual)

    def views(self, size: int) -> tuple[View, View]:
        return (View(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, vflip=0.5),) * 2

    def begin(self, features: Whole) -> None:
        """Which labels depend on one another, among the training cases alone."""
        if self.config.graph == "cooccurrence":
            truth = np.stack([features.labels(label) for label in self.setting.counts], 1)
            self.network.edges.copy_(torch.from_numpy(dependence(truth)))  # type: ignore[operator]


class GraphNetwork(nn.Module):
    """Label embeddings of both images, messages among them, heads."""

    edges: Tensor  # (labels, labels) within an image, zero on the diagonal; the same in both

    def __init__(
        self,
        shape: Shape,
        level: int = -1,
        direction: str = "c2d",
        norm: str = "row",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.level, self.direction, self.norm, self.residual = level, direction, norm, residual
        labels = len(shape.classes)
        self.embeddings = nn.ModuleDict({m: LabelEmbeddings(shape.maps[level], labels) for m in ("d", "c")})
        self.layers = nn.ModuleList(nn.Linear(NODE, NODE) for _ in range(2))
        widths = {"d": NODE, "c": NODE, "g": 2 * NODE}
        self.heads = nn.ModuleDict({g: NodeHeads(width, shape.classes) for g, width in widths.items()})
        self.register_buffer("edges", torch.zeros(labels, labels))

    def forward(self, d: Sight, c: Sight, table: Tensor) -> Outputs:
        own = {"d": self.embeddings["d"](d.maps[self.level]), "c": self.embeddings["c"](c.maps[self.level])}
        nodes = torch.cat(list(own.values()), 1)  # (b, 2 labels, NODE), dermoscopic ones first
        hears = normalised(adjacency(self.edges, self.direction), self.norm).to(nodes)
        for layer in self.layers:
            heard = F.leaky_relu(layer(hears @ nodes), 0.2)
            nodes = nodes + heard if self.residual else heard
        both = {**own, "g": torch.cat(nodes.chunk(2, 1), 2)}
        groups = {g: self.heads[g](x) for g, x in both.items()}
        return Outputs(groups, {"nodes": nodes})


class NodeHeads(LinearHeads):
    """A linear layer for each label, on a node of its own."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [head(x[:, k]) for k, head in enumerate(self)]


class LabelEmbeddings(nn.Module):
    """A map (b, width, h, w) -> an embedding (b, labels, NODE) of every label, from the places that it looks at."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.queries = nn.Conv2d(width, labels, 1)
        self.projections = nn.ModuleList(nn.Linear(width, NODE) for _ in range(labels))

    def forward(self, maps: Tensor) -> Tensor:
        places = self.queries(maps).flatten(2).softmax(2)  # (b, labels, places)
        found = places @ maps.flatten(2).mT  # (b, labels, width)
        return torch.stack([project(found[:, k]) for k, project in enumerate(self.projections)], 1)


def adjacency(edges: Tensor, direction: str) -> Tensor:
    """(2n, 2n), a row for each node that hears: labels within each image, its twin in the other one, itself."""
    twin, none = eye(len(edges), edges), torch.zeros_like(edges)
    to_d, to_c = (twin if direction in (way, "both") else none for way in ("c2d", "d2c"))
    whole = torch.cat([torch.cat([edges, to_d], 1), torch.cat([to_c, edges], 1)])
    return whole + eye(len(whole), edges)


def eye(count: int, like: Tensor) -> Tensor:
    """Ones on the diagonal, made where another tensor lies."""
    return torch.eye(count, dtype=like.dtype, device=like.device)


def normalised(graph: Tensor, norm: str) -> Tensor:
    """What a node hears as a mean (row), or divided by the root of both ends' degrees (symmetric)."""
    degree = graph.sum(1)
    if norm == "row":
        return graph / degree[:, None]
    return graph / (degree[:, None] * degree[None, :]).sqrt()


def dependence(truth: np.ndarray) -> np.ndarray:
    """Cramer's V of every two labels of (cases, labels) classes, -1 where unknown; zero on the diagonal."""
    labels = truth.shape[1]
    found = np.zeros((labels, labels), np.float32)
    for i in range(labels):
        for j in range(i):
            found[i, j] = found[j, i] = cramers_v(truth[:, i], truth[:, j])
    return found


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """How far two labels depend on one another, from 0 to 1; 0 where one of them has a single class."""
    known = (a >= 0) & (b >= 0)
    counts = np.zeros((a.max(initial=0) + 1, b.max(initial=0) + 1))
    np.add.at(counts, (a[known], b[known]), 1)
    counts = counts[counts.any(1)][:, counts.any(0)]
    if min(counts.shape) < 2:
        return 0.0
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / counts.sum() / (min(counts.shape) - 1)))
