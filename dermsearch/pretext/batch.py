"""A batch as a task sees it: units of a pool, their views, labels and metadata; and in which order units come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.columns import Table
from dermsearch.data.store.strata import Strata
from dermsearch.data.views.arrays import Array, uniforms
from dermsearch.data.views.augment import PatchGrid, View, alike, patches, plain, render
from dermsearch.data.views.blockmask import BlockMask, masks
from dermsearch.data.views.pictures import Pictures

AT_ONCE = 1 << 16  # bytes that CUDA takes out of the host's plain memory without waiting


class Pool(Protocol):
    """The images of one branch: units -> their pictures on the device, and what is known of them."""

    device: torch.device

    @property
    def strata(self) -> Strata | None: ...

    def __len__(self) -> int: ...

    def pixels(self, units: np.ndarray) -> Pictures: ...

    def there(self, units: np.ndarray) -> np.ndarray: ...

    def groups(self, units: np.ndarray) -> np.ndarray: ...

    def labels(self, name: str, units: np.ndarray) -> np.ndarray: ...

    def table(self, names: Sequence[str], units: np.ndarray) -> Table: ...

    def patients(self, units: np.ndarray) -> np.ndarray: ...

    def lesions(self, units: np.ndarray) -> np.ndarray: ...

    def people(self, names: Sequence[str], patients: np.ndarray) -> Table: ...


@dataclass(frozen=True)
class Batch:
    """One step's global batch (or a micro-batch of it), seen from one process."""

    units: np.ndarray  # (B,) of the global batch, the same on every process
    pool: Pool
    size: int
    seed: int
    epoch: int
    step: int  # counted from the start of the stage

    @property
    def turn(self) -> int:
        """What numbers views that differ from step to step; of validation images nothing does."""
        return self.step

    @property
    def own(self) -> np.ndarray:
        """The units of this process."""
        return self.units[world.mine(len(self.units))]

    @property
    def own_times(self) -> np.ndarray:
        """How often each of this process's units stood in the global batch before."""
        order = self.units.argsort(kind="stable")
        first = np.searchsorted(self.units[order], self.units)  # where its like begin, in that order
        times = np.empty(len(order), np.int64)
        times[order] = np.arange(len(order))
        return (times - first)[world.mine(len(order))]

    @cached_property
    def pictures(self) -> Pictures:
        """What this process's units look like: fetched once, however many views a step takes of them."""
        return self.pool.pixels(self.own)

    def view(self, view: View, use: str, units: np.ndarray | None = None) -> Tensor:
        """Pictures as `view` declares them, of this process's units unless others are named.

        They depend on (seed, epoch, unit, use) alone, so any process can make any unit's.
        """
        return self.views([view], use, units)[0]

    def views(
        self, views: Sequence[View], use: str, units: np.ndarray | None = None, again: bool = False
    ) -> list[Tensor]:
        """Several crops of the same pictures, each with random numbers of its own: `[large] * 2 + [small] * 6`.

        A unit that stands in the batch several times looks the same every time, unless it is to look different `again`.
        """
        pictures, units = self.pictures_of(units)
        if again:
            units = self.own_times * len(self.pool) + units
        there = self.beside(units)
        numbers = (self.uniforms(there, f"{use}/{i}", View.numbers) for i in range(len(views)))
        if there is units:
            return [render(view, pictures, u) for view, u in zip(views, numbers, strict=True)]
        found: list[Tensor] = []
        for view, some in groupby(zip(views, numbers, strict=True), itemgetter(0)):
            found += alike(view, pictures, torch.stack([u for _, u in some], 1)).unbind(1)
        return found

    def whole(self) -> Tensor:
        """Whole pictures of this process's units, as encoders are judged on."""
        return plain(self.pictures, self.size)

    def patches(self, grid: PatchGrid, use: str) -> Tensor:
        """(b, 9, 3, p, p) patches of this process's units."""
        return patches(grid, self.pictures, self.uniforms(self.beside(self.own), use, PatchGrid.numbers))

    def masks(self, blocks: BlockMask, use: str) -> np.ndarray:
        """Bool (b, height, width), True where a patch of this process's units is hidden.

        On the host: which they are is then known without waiting for the device.
        """
        return masks(blocks, self.uniforms(self.own, use, BlockMask.numbers))

    def pictures_of(self, units: np.ndarray | None) -> tuple[Pictures, np.ndarray]:
        """Pictures of these units, from those at hand if they are this process's."""
        own = self.own
        if units is None:
            return self.pictures, own
        order = own.argsort(kind="stable")
        rows = order[np.searchsorted(own, units, sorter=order).clip(max=len(own) - 1)]
        at_hand = np.array_equal(own[rows], units)
        return self.pictures.take(rows) if at_hand else self.pool.pixels(units), units

    def labels(self, name: str) -> Tensor:
        """int64 (b,) of this process's units on the device, -1 where a case has none; for `supervised` tasks alone."""
        return self.on_device(self.pool.labels(name, self.own).astype(np.int64))

    def table(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Metadata of this process's units as float32 (b, columns) on the device, and bool alike: what is known.

        Numbers are standardised by the training cases, words the index in their column's vocabulary; 0 where unknown.
        """
        table = self.pool.table(names, self.own)
        return self.on_device(table.values), self.on_device(table.known)

    @property
    def there(self) -> Tensor:
        """Bool (b,) on the device: False where a case lacks this image, and another case's stands in for it."""
        return self.on_device(self.pool.there(self.own))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By which pictures are normalised: mean and deviation of each colour, (3, 1, 1) as `x` is."""
        each = (torch.tensor(told, dtype=x.dtype).view(3, 1, 1) for told in (self.pictures.mean, self.pictures.std))
        mean, deviation = (told.to(x.device, non_blocking=True) for told in each)
        return mean, deviation

    def on_device(self, values: np.ndarray) -> Tensor:
        """Where the pictures are."""
        return sent(values, self.pool.device)

    def beside(self, units: np.ndarray) -> Array:
        """Units as what is drawn for pictures is to know them: on the device, unless that is the host."""
        return units if self.pool.device.type == "cpu" else self.on_device(units)

    def uniforms(self, units: Array, use: str, count: int) -> Array:
        """(n, count) random numbers of these units in this epoch, drawn where the units lie."""
        return uniforms(self.seed, self.epoch, units, use, count)

    def permutation(self, use: str) -> np.ndarray:
        """A shuffle of the global batch's rows, the same on every process."""
        return uniforms(self.seed, self.step, np.arange(len(self.units)), use, 1)[:, 0].argsort()


def sent(values: np.ndarray, device: torch.device) -> Tensor:
    """On the device; of its own, CUDA copies more than `AT_ONCE` only when all that was asked of it before is done."""
    of = torch.from_numpy(values)
    if device.type == "cuda" and of.nbytes > AT_ONCE:
        with suppress(RuntimeError):  # the host has no such memory left, or there is no GPU
            of = of.pin_memory()
    return of.to(device, non_blocking=True)


def epoch_order(
    seed: int,
    epoch: int,
    units: int,
    count: int,
    replacement: bool,
    chances: np.ndarray | None = None,
    strata: Strata | None = None,
) -> np.ndarray:
    """The units of an epoch, the same on every process. The last batch is filled up from the front of the order.

    Of a mixture whose stores have weights, each store's share is its weight, whatever the chances within it.
    """
    if strata is not None and chances is None and not replacement:
        return strata.order(seed, epoch, count)
    if strata is not None:
        chances = strata.chances(chances)
    rng = np.random.default_rng([seed, epoch, units])
    if chances is not None:
        return rng.choice(units, count, p=chances / chances.sum())
    if replacement:
        return rng.integers(0, units, count)
    return np.resize(rng.permutation(units), count)


@torch.no_grad()
def all_features(
    module: nn.Module, pool: Pool, units: int, size: int, autocast: Callable[[], Any], batch: int = 256
) -> Tensor:
    """Eval-mode output of `module` on every whole image of a pool, float32, the same on every process."""
    was = module.training
    module.eval()
    rows = []
    for start in range(0, units, batch):
        with autocast():
            x = plain(pool.pixels(np.arange(start, min(start + batch, units))), size)
            rows.append(module(x).float())
    module.train(was)
    return torch.cat(rows)
