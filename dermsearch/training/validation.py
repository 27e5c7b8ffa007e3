"""The loss on validation images, and nothing else: whatever the look at them moves is put back.

The loss is the one that is trained, batch statistics included, without dropout. A validation image has the same
views every time, so that one epoch's number compares with another's.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.pool import CasePool
from dermsearch.data.views.arrays import Array, uniforms
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import Batch
from dermsearch.training.learner import Learner

DROPOUT = (nn.modules.dropout._DropoutNd, GlobalDropout, DropPath)


class HeldOut(Batch):
    """A batch of validation images: the views of epoch 0, whatever the epoch is that the task is told."""

    @property
    def turn(self) -> int:
        return 0

    def uniforms(self, units: Array, use: str, count: int) -> Array:
        return uniforms(self.seed, 0, units, use, count)

    def permutation(self, use: str) -> np.ndarray:
        return uniforms(self.seed, int(self.units[0]), np.arange(len(self.units)), use, 1)[:, 0].argsort()


@torch.no_grad()
def validated(
    learner: Learner,
    pools: Mapping[str, CasePool],
    batch: int,
    seed: int,
    at: tuple[int, int],
    cast: Callable[[], AbstractContextManager[None]],
) -> tuple[float, dict[str, float]]:
    """The mean loss over batches of the pools, `at` an epoch and a step, and its parts, as training names them.

    The last batch is filled up from the front.
    """
    steps = math.ceil(max(map(len, pools.values())) / batch)
    orders = learner.heldout(pools, steps * batch)
    found: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {}
    seeds = {b: zlib.crc32(f"{seed}/{b}/val".encode()) for b in pools}

    def batches(i: int) -> dict[str, Batch]:
        part = slice(i * batch, (i + 1) * batch)
        return {b: HeldOut(orders[b][part], pool, pool.size, seeds[b], *at) for b, pool in pools.items()}

    learner.announce(pools, [batches(i) for i in range(steps)])
    with untouched(learner):
        for i in range(steps):
            with cast():
                loss, losses = learner(batches(i))
            found.append(loss)
            for b, own in losses.items():
                for name, value in own.parts.items():
                    parts.setdefault(f"{b}.{name}" if len(pools) > 1 else name, []).append(value.float())

    def mean(values: list[Tensor]) -> float:
        return float(world.reduce_sum(torch.stack(values).mean()) / world.size())

    return mean(found), {name: mean(values) for name, values in parts.items()}


@contextmanager
def untouched(learner: Learner) -> Iterator[None]:
    """Without dropout inside; buffers, modes and what tasks carry from one call to the next are as before after it."""
    buffers = [
        (m, name, b, None if b is None else b.clone()) for m in learner.modules() for name, b in m._buffers.items()
    ]
    carried = [(task, dict(vars(task))) for task in learner.each()]
    modes = [(m, m.training) for m in learner.modules()]
    for m in learner.modules():
        if isinstance(m, DROPOUT):
            m.eval()
    try:
        yield
    finally:
        for task, before in carried:
            vars(task).clear()
            vars(task).update(before)
        for m, name, b, values in buffers:
            m._buffers[name] = b
            if b is not None and values is not None:
                b.copy_(values)
        set_modes(modes)


def set_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    """Put every module back into its own mode: `train()` would wake those that a task keeps still."""
    for module, training in modes:
        module.training = training


def over(history: list[dict[str, float]], patience: int) -> bool:
    """Has the validation loss found no new minimum in the last `patience` epochs?"""
    losses = [row["val_loss"] for row in history if patience]
    return bool(patience) and len(losses) - 1 - int(np.argmin(losses)) >= patience
