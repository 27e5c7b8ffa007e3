"""Losses that tell an image's own other view from the views of all other images."""

from __future__ import annotations

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
