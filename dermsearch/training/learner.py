"""What a stage trains: its task on every branch of the encoders, and what those tasks are told."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dermsearch.data.pool import CasePool, Look
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import Batch, Loss, Setting, Task
from dermsearch.training.optim import FALLBACK


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's result beside its starting weights and its cases."""

    task: str
    config: dict[str, Any]  # the task's own settings, all given
    train: dict[str, Any]  # optimiser, schedule, epochs, batch
    seed: int
    precision: str  # fp32 | bf16
    look: Look | None = None  # at the images; None: as the store holds them

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", {**FALLBACK, **self.train})


class Learner(nn.Module):
    """The stage's task on every branch of the encoders: independent, so their losses are summed."""

    def __init__(self, task: type[Task], encoders: Encoders, pools: Mapping[str, CasePool], recipe: Recipe) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{recipe.seed}/{recipe.task}".encode()))
            config = task.Config.model_validate(recipe.config)
            told = settings_of(encoders, pools, recipe)
            self.tasks = nn.ModuleDict({b: task(encoders.backbones[b], config, told[b]) for b in encoders.branches})

    def forward(self, batches: Mapping[str, Batch]) -> tuple[Tensor, dict[str, Loss]]:
        losses = {branch: self.tasks[branch](batch) for branch, batch in batches.items()}
        return torch.stack([loss.value for loss in losses.values()]).sum(), losses

    def each(self) -> list[Task]:
        """The branches' tasks."""
        return list(self.tasks.values())  # type: ignore[arg-type]

    def options(self) -> dict[str, dict[str, float]]:
        """The tasks' optimiser options under their full parameter names."""
        return {f"tasks.{b}.{prefix}": o for b, t in self.tasks.items() for prefix, o in t.options().items()}  # type: ignore[operator]

    def handed_on(self) -> dict[str, nn.Module]:
        """By branch, what would be judged if the stage ended now."""
        return {b: t.handed_on() for b, t in self.tasks.items()}  # type: ignore[operator]


def settings_of(encoders: Encoders, pools: Mapping[str, CasePool], recipe: Recipe) -> dict[str, Setting]:
    """What each branch's task is told of its stage."""
    batch, steps = schedule(pools, recipe.train)
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
            {name: len(names) for name, names in pool.store.classes.items()},
        )
        for b, pool in pools.items()
    }


def schedule(pools: Mapping[str, CasePool], train: dict[str, Any]) -> tuple[int, int]:
    """The batch of a step, and the steps of an epoch: a branch with fewer images sees some again."""
    batch = min(train["batch"], *map(len, pools.values()))
    return batch, math.ceil(max(map(len, pools.values())) / batch)


def number_dropout(module: nn.Module, number: int) -> None:
    """Give every numbered dropout the number of this forward pass."""
    for m in module.modules():
        if isinstance(m, GlobalDropout):
            m.step = number


def compile_networks(learner: Learner) -> None:
    """Compile every backbone of the tasks in place, their slow copies too. Heads are too small to gain."""
    kinds = {type(task.backbone) for task in learner.each()}
    for module in learner.modules():
        if type(module) in kinds:
            module.compile()
