"""What a student may be taught of a teacher: answers, order of similarity, distances and angles, and Gram matrices.

As in SSD-KD (Wang et al. 2023). Every loss is a mean over the global batch: where rows meet rows of other processes,
each process has the whole of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dermsearch import world

KEPT = 0.75  # of the rows that the teacher is wrong about
TINY = 1e-12


def answers(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T squared times KL(teacher || student) of logits softened by T, mean over this process's rows."""
    told = (teacher / temperature).log_softmax(1)
    found = (student / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(found, told, log_target=True, reduction="batchmean")


def weighted_classes(logits: Sequence[Tensor], truth: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Cross-entropy in which cases weigh as their classes do, over their weight; mean over labels known of any case."""
    sums, whole = [], []
    for x, t, w in zip(logits, truth.T, weights, strict=True):
        w = w.to(x, non_blocking=True)
        sums.append(F.cross_entropy(x, t, w, ignore_index=-1, reduction="sum"))
        whole.append((w[t.clamp(min=0)] * (t >= 0)).sum())
    weight = world.reduce_sum(torch.stack(whole))
    labels = (weight > 0).sum().clamp(min=1) / world.size()
    return (torch.stack(sums) / weight.clamp(min=TINY)).sum() / labels


def cosines(rows: Tensor) -> Tensor:
    """(b, copies, d) embeddings, first the original -> (b, copies - 1, b) of the others to all originals."""
    rows = F.normalize(rows, dim=2, eps=TINY)
    return torch.einsum("bkd,cd->bkc", rows[:, 1:], rows[:, 0])


def own_original(alike: Tensor) -> Tensor:
    """How well each copy's own original is told by cosine, as cross-entropy."""
    truth = torch.arange(len(alike), device=alike.device)[:, None].expand(alike.shape[:2])
    return F.cross_entropy(alike.flatten(0, 1), truth.flatten())


def ranked(alike: Tensor) -> Tensor:
    """Bool (b, copies - 1): where the teacher knows the copy's original, and three quarters of the rest, best first.

    Of the rows whose own original is not the most alike those with the better place among all originals are kept.
    """
    own = alike.diagonal(dim1=0, dim2=2).T[..., None]  # (b, copies - 1, 1)
    rank = (alike > own).sum(2).flatten()
    wrong = (rank > 0).sum()
    kept = len(rank) - wrong + (wrong * KEPT).long()
    place = rank.argsort(stable=True).argsort()  # of every row among all
    return (place < kept).view(alike.shape[:2])


def similarity(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T squared times KL of softened cosines to all originals, over the rows that `ranked` keeps."""
    kept = ranked(teacher)
    found, told = ((x / temperature).log_softmax(2) for x in (student, teacher))
    each = F.kl_div(found, told, log_target=True, reduction="none").sum(2)  # no step waits to be told how many count
    return temperature**2 * (each * kept).sum() / kept.sum()


def distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) products of rows and their Euclidean distances, 0 on the diagonal; in double, for rows that are near."""
    x = x.double()
    products = x @ x.T
    square = products.diagonal()
    apart = (square[:, None] + square[None, :] - 2 * products).clamp(min=TINY).sqrt()
    return products, apart * (1 - torch.eye(len(x), device=x.device, dtype=x.dtype))


def relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) distances over their mean, and (n, n, n) cosines between the ways from each row to two others."""
    products, apart = distances(x)
    mean = apart.sum() / (apart > 0).sum().clamp(min=1)
    # (j - i)(k - i), without n x n differences of whole rows
    own = products.diagonal()[:, None, None]
    ways = products[None] - products[:, :, None] - products[:, None, :] + own
    cosine = ways / (apart[:, :, None] * apart[:, None, :]).clamp(min=TINY)
    other = apart > 0
    return apart / mean.clamp(min=TINY), cosine * (other[:, :, None] & other[:, None, :])


def relational(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth L1 between distances, and between angles, of all rows."""
    with torch.no_grad():
        apart, between = relations(teacher)
    found, seen = relations(student)
    return F.smooth_l1_loss(found, apart).to(student), F.smooth_l1_loss(seen, between).to(student)


def gram(maps: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, c, c) products of channels over c h w."""
    rows = maps.flatten(2)
    return rows @ rows.mT / rows[0].numel()


def gram_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Root mean square difference of Gram matrices, mean over this process's rows."""
    return ((gram(student) - gram(teacher)).square().mean((1, 2)) + TINY).sqrt().mean()
