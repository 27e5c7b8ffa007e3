"""How many processes train this stage, which one this is, and the collectives that keep them one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """What this process does in here is its own affair: it is one of one, and waits for no other."""
    global _alone
    was, _alone = _alone, True
    try:
        yield
    finally:
        _alone = was


def size() -> int:
    """The number of processes that train this stage together."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them; the first is 0 and is the one that writes."""
    return dist.get_rank() if size() > 1 else 0


def mine(rows: int) -> slice:
    """The rows of a global batch that this process works on."""
    each = rows // size()
    assert each * size() == rows, f"{rows} rows do not divide among {size()} processes"
    return slice(rank() * each, (rank() + 1) * each)


def from_first(said: Any) -> Any:
    """What the first process says, on every process."""
    if size() == 1:
        return said
    box = [said if rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]


def reduce_sum(x: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    if size() > 1:
        x = x.detach().clone()
        dist.all_reduce(x)
    return x


class _Sum(torch.autograd.Function):
    """Sum over processes whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


def sum_with_gradient(x: Tensor) -> Tensor:
    """The sum over all processes, differentiable on every one of them."""
    return _Sum.apply(x) if size() > 1 else x


def gather(x: Tensor) -> Tensor:
    """The rows of all processes in rank order, without gradient."""
    if size() == 1:
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows of all processes in rank order, differentiable on every one of them."""
    if size() == 1:
        return x
    return gather_by_torch(x) if x.is_cuda else gather_by_sum(x)


def gather_by_torch(x: Tensor) -> Tensor:
    """torch's own: the gradients are summed and dealt out in one go, which a GPU's processes can and gloo cannot."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))


def gather_by_sum(x: Tensor) -> Tensor:
    """The sum over processes of each one's rows among zeros: the same on any backend, rows times more to send."""
    rows = len(x) * size()
    at = mine(rows)
    return sum_with_gradient(F.pad(x, [0, 0] * (x.dim() - 1) + [at.start, rows - at.stop]))
