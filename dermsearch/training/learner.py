"""What a stage trains: its task on every branch of the encoders, or one on all of them, and what tasks are told."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermsearch.data.store.pool import CasePool, Look
from dermsearch.fit.heads import counts_of
from dermsearch.models.artifact import Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import JOINT, AnyTask, Batch, Loss, Setting
from dermsearch.pretext.batch import all_features
from dermsearch.training.optim import FALLBACK

DOORS = ("forward_features", "forward_intermediates")  # of timm's backbones, beside their own call


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's result beside its starting weights and its cases."""

    task: str
    config: dict[str, Any]  # the task's own settings, all given
    train: dict[str, Any]  # optimiser, schedule, epochs, batch
    seed: int
    precision: str  # fp32 | bf16
    look: Look | None = None  # at the images; None: as the store holds them
    metadata: tuple[str, ...] = ()  # the columns that a task with `tables` reads

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", {**FALLBACK, **self.train})


class Learner(nn.Module):
    """The stage's task on every branch of the encoders: independent, so their losses are summed. Or one joint task."""

    def __init__(
        self,
        task: type[AnyTask],
        encoders: Encoders,
        pools: Mapping[str, CasePool],
        recipe: Recipe,
        artifact: Artifact = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.joint = task.joint
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{recipe.seed}/{recipe.task}".encode()))
            config = task.Config.model_validate(recipe.config)
            told = settings_of(task, encoders, pools, recipe, artifact)
            self.tasks = nn.ModuleDict(task.over(encoders, config, told))

    def forward(self, batches: Mapping[str, Batch]) -> tuple[Tensor, dict[str, Loss]]:
        if self.joint:
            losses: dict[str, Loss] = self.tasks[JOINT](batches)
        else:
            losses = {branch: self.tasks[branch](batch) for branch, batch in batches.items()}
        return torch.stack([loss.value for loss in losses.values()]).sum(), losses

    def each(self) -> list[AnyTask]:
        """The branches' tasks, or the joint one."""
        return list(self.tasks.values())  # type: ignore[arg-type]

    def tell(self, hook: str, of_branch: Mapping[str, Any], *first: Any) -> None:
        """Call a hook of every branch's task with what is that branch's own; of a joint task once, with everything."""
        if self.joint:
            getattr(self.tasks[JOINT], hook)(*first, of_branch)
        else:
            for branch, own in of_branch.items():
                getattr(self.tasks[branch], hook)(*first, own)

    def orders(self, epoch: int, pools: Mapping[str, CasePool], count: int) -> dict[str, np.ndarray]:
        """The units of an epoch by pool, as the tasks plan them."""
        if self.joint:
            orders = dict(self.tasks[JOINT].plan_epoch(epoch, pools, count))  # type: ignore[operator]
        else:
            orders = {b: self.tasks[b].plan_epoch(epoch, pool, count) for b, pool in pools.items()}  # type: ignore[operator]
        return planned(orders, pools, count)

    def announce(self, pools: Mapping[str, CasePool], coming: Sequence[Mapping[str, Batch]]) -> None:
        """Tell every pool which units it will be asked for while these batches are worked on."""
        for b in coming[0]:
            asks = self.tasks[JOINT if self.joint else b].asks
            pools[b].expect(units for batches in coming for units in asks(batches[b]))  # type: ignore[operator]

    def heldout(self, pools: Mapping[str, CasePool], count: int) -> dict[str, np.ndarray]:
        """The units by pool that `patience` looks at."""
        if self.joint:
            return dict(self.tasks[JOINT].plan_heldout(pools, count))  # type: ignore[operator]
        return {b: self.tasks[b].plan_heldout(pool, count) for b, pool in pools.items()}  # type: ignore[operator]

    def options(self) -> dict[str, dict[str, float]]:
        """The tasks' optimiser options under their full parameter names."""
        return {f"tasks.{b}.{prefix}": o for b, t in self.tasks.items() for prefix, o in t.options().items()}  # type: ignore[operator]

    def handed_on(self) -> dict[str, nn.Module]:
        """By branch, what would be judged if the stage ended now."""
        if self.joint:
            return dict(self.tasks[JOINT].handed_on().items())  # type: ignore[operator]
        return {b: t.handed_on() for b, t in self.tasks.items()}  # type: ignore[operator]

    def hands_on(self) -> dict[str, Part]:
        """What is handed on beside the encoders: by a joint task, or by one on the only branch."""
        first, *others = self.each()
        return {} if others else first.hands_on()


class WholeImages(dict[str, Callable[[nn.Module], Tensor]]):
    """By branch, what gives eval-mode outputs on its pool's whole images; of a joint task, a `base.Whole`."""

    def __init__(self, pools: Mapping[str, CasePool], cast: Callable[[], Any]) -> None:
        self.pools = pools
        of = {b: (lambda module, p=p: all_features(module, p, len(p), p.size, cast)) for b, p in pools.items()}
        super().__init__(of)

    def __call__(self, branch: str, module: nn.Module) -> Tensor:
        return self[branch](module)

    def there(self, branch: str) -> np.ndarray:
        """Which units have an image of that branch."""
        return self.pools[branch].there(np.arange(len(self.pools[branch])))

    def labels(self, name: str) -> np.ndarray:
        """Every unit's class of a label, -1 where it has none; for `supervised` tasks alone."""
        pool = next(iter(self.pools.values()))
        return pool.labels(name, np.arange(len(pool)))


def settings_of(
    task: type[AnyTask], encoders: Encoders, pools: Mapping[str, CasePool], recipe: Recipe, artifact: Artifact
) -> dict[str, Setting]:
    """What each branch's task is told of its stage."""
    batch, steps = schedule(task, pools, recipe.train)
    first = next(iter(pools.values()))
    sizes = {name: len(names) for name, names in first.store.classes.items()}
    told = told_of_tables(first, recipe.metadata) if task.tables else {}
    words = {c.name: len(c.vocabulary) for c in first.store.columns.values() if c.kind == "word"}
    labels = {b: {name: pool.labels(name, np.arange(len(pool))) for name in sizes} for b, pool in pools.items()}
    return {
        b: Setting(
            len(pool),
            pool.size,
            encoders.dim,
            batch // recipe.train["accumulate"],  # a loss sees a micro-batch
            recipe.seed,
            encoders.name,
            recipe.train["epochs"],
            steps * recipe.train["epochs"],
            sizes,
            encoders.modalities,
            artifact,
            counts_of(labels[b], sizes) if task.supervised else {},
            words=words,
            **told,
        )
        for b, pool in pools.items()
    }


def told_of_tables(pool: CasePool, metadata: Sequence[str]) -> dict[str, Any]:
    """What a task that reads metadata is told beside the rest."""
    who = pool.patients(np.arange(len(pool)))
    columns = tuple(pool.store.columns[name] for name in metadata)
    return {"columns": columns, "patients": len(np.unique(who[who >= 0])), "names": pool.store.classes}


def schedule(task: type[AnyTask], pools: Mapping[str, CasePool], train: dict[str, Any]) -> tuple[int, int]:
    """The batch of a step, and the steps of an epoch: a branch with fewer images sees some again."""
    sizes = [len(pool) for pool in task.paced(pools).values()]
    batch = task.batch_of(train["batch"], min(sizes))
    return batch, math.ceil(max(sizes) / batch)


def planned(orders: dict[str, np.ndarray], pools: Mapping[str, CasePool], count: int) -> dict[str, np.ndarray]:
    """The units of an epoch by pool, looked at: ValueError where they are not `count` of each pool's."""
    for name, units in orders.items():
        if np.shape(units) != (count,) or not 0 <= np.min(units) <= np.max(units) < len(pools[name]):
            raise ValueError(f"plan_epoch: must name {count} units of the {len(pools[name])} of pool '{name}'")
    return orders


def number_dropout(module: nn.Module, number: int) -> None:
    """Give every numbered dropout the number of this forward pass."""
    for m in module.modules():
        if isinstance(m, GlobalDropout):
            m.step = number


def compile_networks(learner: Learner) -> None:
    """Compile every backbone of the tasks in place, their slow copies too. Heads are too small to gain.

    Tasks that look inside a backbone come in by another door than its own call.
    """
    kinds = {type(backbone) for backbone in learner.handed_on().values()}
    for module in learner.modules():
        if type(module) in kinds:
            module.compile()
            for door in DOORS:
                if hasattr(module, door):
                    setattr(module, door, torch.compile(getattr(module, door)))
