"""BatchNorm over all processes' rows: torch's own on GPUs, and one for CPUs, which that refuses."""

from __future__ import annotations

from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from dermsearch import world

M = TypeVar("M", bound=nn.Module)


class WorldBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch statistics are those of the global batch; value and gradient equal one process on the whole of it."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world.size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.shape[1] * world.size()  # every process holds as many rows
        mean = world.sum_with_gradient(x.sum(over)) / count
        centred = x - mean.view(shape)
        var = world.sum_with_gradient(centred.square().sum(over)) / count
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        self._track(mean.detach(), var.detach() * count / max(count - 1, 1))
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(var, weight)


def across_processes(module: M) -> M:
    """Make every BatchNorm of `module` one over all processes, in place, where it lies. With one nothing changes.

    A module marked `local_batchnorm = True` (MoCo's key encoder) keeps its own.
    """
    if world.size() == 1:
        return module
    lies = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    for child in _synchronised(module):
        if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise ValueError(f"{type(child).__name__} cannot be synchronised over processes; use workers: 1")
        child.__class__ = nn.SyncBatchNorm if lies.is_cuda else WorldBatchNorm
        child.process_group = None  # type: ignore[assignment]  # all processes, as SyncBatchNorm has it
    return module


def _synchronised(module: nn.Module) -> list[nn.Module]:
    if getattr(module, "local_batchnorm", False):
        return []
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return [module]
    return [found for child in module.children() for found in _synchronised(child)]
