"""What is watched in every step and epoch: that numbers are finite, that the embedding has not collapsed, memory."""

from __future__ import annotations

import resource

import torch
from torch import Tensor, nn


class StageFailed(RuntimeError):
    """The stage cannot go on, through its settings: recorded, not retried."""


def check_finite(task: str, losses: list[Tensor], norms: list[Tensor], before: int, steps: int) -> None:
    """Stop the stage at its first loss or gradient that is not a number."""
    for what, values in (("loss", losses), ("gradient", norms)):
        bad = (~torch.isfinite(torch.stack(values))).nonzero()
        if len(bad):
            at = int(bad[0, 0])
            raise StageFailed(f"{task}: {what} is {float(values[at])} at step {before + at + 1} of {steps}")


@torch.no_grad()
def collapse(embedding: Tensor) -> tuple[float, float]:
    """(std of unit embeddings times sqrt(d), effective rank): near 1 and high when healthy, 0 and 1 when collapsed."""
    x = nn.functional.normalize(embedding.float(), dim=1)
    std = float(x.std(0).mean() * x.shape[1] ** 0.5)
    values = torch.linalg.svdvals(x.double())
    share = values / values.sum().clamp(min=1e-12)
    return std, float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))


def peak_memory(device: torch.device) -> float:
    """MiB: the most that tensors held on a GPU since this was last asked; the most that a CPU process ever held."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux tells KiB
