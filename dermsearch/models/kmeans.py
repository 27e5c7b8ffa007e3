"""Spherical k-means on the device, from given starts: no randomness, and the same result from the same numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def spherical_kmeans(x: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Labels (n,) of the rows of `x`, and unit centroids (k, d), after so many moves of the centroids.

    A row belongs to the centroid of the largest dot product, the first of equals. A centroid becomes its members'
    mean, brought to length one, so long rows count for more unless `x` is normalised; without members it stays.
    """
    centroids = F.normalize(start, dim=1)
    for _ in range(iterations):
        members = F.one_hot(nearest(x, centroids), len(centroids)).to(x.dtype)  # a matrix product: on a GPU, adding
        moved = F.normalize(members.T @ x, dim=1)  # rows up by their index has no fixed order
        centroids = torch.where(members.any(0)[:, None], moved, centroids)
    return nearest(x, centroids), centroids


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """The centroid that each row belongs to."""
    return (x @ centroids.T).argmax(1)


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """How far two clusterings of the same rows agree, whatever their clusters are called: 1 wholly, 0 by chance.

    It is normalised by the mean of both entropies. Two that put all rows together agree.
    """
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64, device=a.device)
    table.index_put_((a, b), torch.ones_like(a, dtype=torch.float64), accumulate=True)  # whole numbers: any order does
    joint = table / len(a)
    apart = torch.special.entr(joint.sum(1)).sum() + torch.special.entr(joint.sum(0)).sum()
    shared = apart - torch.special.entr(joint).sum()
    return torch.where(apart > 0, 2 * shared / apart, torch.ones_like(apart)).clamp(0, 1).float()
