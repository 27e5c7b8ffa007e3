"""Losses that tell an image's own other view from the views of all other images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dermsearch import world


def nt_xent(
    a: Tensor, b: Tensor, temperature: float, there: Tensor | None = None, units: Tensor | None = None
) -> Tensor:
    """Symmetric NT-Xent of paired (n, d) projections: row i of `a` and row i of `b` are of one image.

    Each of this process's 2n rows is to find its partner among the 2N - 1 other rows of all processes; the mean over
    processes is the loss of the global batch, and so is its gradient. Collapsed projections give log(2N - 1). Under
    autocast too, similarities are of the precision that a small temperature needs.

    Pairs that are not `there` (n,) neither look for their partner nor stand among what others choose from; the mean is
    over the rest. With `units` (n,), rows of the same unit are no negatives of each other.

    Lightly's NTXentLoss is the same function, but multiplies in the half precision of an autocast around it, and
    picks logits by a mask, for which a GPU has to wait.
    """
    with torch.autocast(a.device.type, enabled=False):
        z = torch.cat([a, b])
        z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
        logits = z / temperature @ world.gather_with_gradient(z).T  # (2n, 2N), by process, then a before b
        itself = torch.arange(len(z), device=z.device) + len(z) * world.rank()
        logits.scatter_(1, itself[:, None], -torch.inf)
        partner = itself.roll(len(a))
        if units is not None:
            alike = units.repeat(2)[:, None] == world.gather(units.repeat(2))
            logits = logits.masked_fill(alike.scatter(1, partner[:, None], False), -torch.inf)
        if there is None:
            return F.cross_entropy(logits, partner)
        kept = there.repeat(2)
        everyone = world.gather(kept)
        logits = logits.masked_fill(~everyone, -torch.inf).where(kept[:, None], 0.0)  # what is left out stays finite
        each = F.cross_entropy(logits, partner, reduction="none").where(kept, 0.0)
        # The mean over the global batch; times the processes, because their mean is taken.
        return each.sum() / everyone.sum().clamp(min=1) * world.size()


def info_nce(
    a: Tensor, b: Tensor, scale: Tensor | float, valid: Tensor, direction: float = 0.5, kinds: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """InfoNCE between two kinds of rows, (n, d) each: row i of `a` and of `b` are of one thing. And hits of a.

    Each row of `a` is to find its own row among those of `b` of all processes, by cosine times `scale`, and the
    reverse; `direction` is the share of the first. Rows that are not `valid` (n,) neither look nor are looked at. With
    `kinds` (n,), rows of the same kind are no negatives of each other. The mean over processes is that of the global
    batch; it is 0, and has no gradient, where nothing is valid.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1) for x in (a, b))
        count = world.reduce_sum(valid.sum()).clamp(min=1) / world.size()
        there, found = towards(a, b, scale, valid, kinds)
        back, _ = towards(b, a, scale, valid, kinds)
        return (direction * there.sum() + (1 - direction) * back.sum()) / count, found.sum() / count


def towards(
    a: Tensor, b: Tensor, scale: Tensor | float, valid: Tensor, kinds: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of each row of `a` (unit length, 0 where not valid), and whether its own row of `b` is the nearest."""
    logits = scale * (a @ world.gather_with_gradient(b).T)
    itself = torch.arange(len(a), device=a.device) + len(a) * world.rank()
    if kinds is not None:
        alike = kinds[:, None] == world.gather(kinds)
        logits = logits.masked_fill(alike.scatter(1, itself[:, None], False), -torch.inf)
    logits = logits.masked_fill(~world.gather(valid), -torch.inf).where(valid[:, None], 0.0)
    each = F.cross_entropy(logits, itself, reduction="none").where(valid, 0.0)
    return each, (logits.detach().argmax(1) == itself) & valid


def floor(kinds: np.ndarray) -> float:
    """The smallest InfoNCE that rows of these kinds allow, where rows of a kind are equal: sum of g log g over n."""
    sizes = np.unique(kinds, return_counts=True)[1]
    return float((sizes * np.log(sizes)).sum() / max(1, sizes.sum()))
