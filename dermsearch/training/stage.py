"""Train one stage: plain PyTorch, under any number of processes, from wherever it was left."""

from __future__ import annotations

import functools
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dermsearch import world
from dermsearch.data.pool import CasePool, Look
from dermsearch.data.store import CaseStore
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import GlobalDropout
from dermsearch.pretext.base import Batch, Loss, Setting, Task, all_features, find_task
from dermsearch.training import optim
from dermsearch.training.precision import autocast


class StageFailed(RuntimeError):
    """The stage cannot go on, through its settings: recorded, not retried."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's result beside its starting weights and its cases."""

    task: str
    config: dict[str, Any]  # the task's own settings, all given
    train: dict[str, Any]  # optimiser, schedule, epochs, batch: all given
    seed: int
    precision: str  # fp32 | bf16
    look: Look | None = None  # at the images; None: as the store holds them


class Partial(Protocol):
    """Where a stage under way is kept between epochs."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


Report = Callable[[dict[str, Any]], None]


class Learner(nn.Module):
    """The stage's task on every branch of the encoders: independent, so their losses are summed."""

    def __init__(self, task: type[Task], encoders: Encoders, pools: dict[str, CasePool], recipe: Recipe) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{recipe.seed}/{recipe.task}".encode()))
            config = task.Config.model_validate(recipe.config)
            told = settings_of(encoders, pools, recipe)
            self.tasks = nn.ModuleDict({b: task(encoders.backbones[b], config, told[b]) for b in encoders.branches})

    def forward(self, batches: dict[str, Batch]) -> tuple[Tensor, dict[str, Loss]]:
        losses = {branch: self.tasks[branch](batch) for branch, batch in batches.items()}
        return torch.stack([loss.value for loss in losses.values()]).sum(), losses

    def each(self) -> list[Task]:
        """The branches' tasks."""
        return list(self.tasks.values())  # type: ignore[arg-type]

    def options(self) -> dict[str, dict[str, float]]:
        """The tasks' optimiser options under their full parameter names."""
        return {f"tasks.{b}.{prefix}": o for b, t in self.tasks.items() for prefix, o in t.options().items()}  # type: ignore[operator]


def settings_of(encoders: Encoders, pools: dict[str, CasePool], recipe: Recipe) -> dict[str, Setting]:
    """What each branch's task is told of its stage."""
    batch, steps = schedule(pools, recipe.train)
    return {
        b: Setting(
            len(pool),
            pool.size,
            encoders.dim,
            batch,
            recipe.seed,
            encoders.name,
            recipe.train["epochs"],
            steps * recipe.train["epochs"],
            {name: len(names) for name, names in pool.store.classes.items()},
        )
        for b, pool in pools.items()
    }


def schedule(pools: dict[str, CasePool], train: dict[str, Any]) -> tuple[int, int]:
    """The batch, and the steps of an epoch: a branch with fewer images sees some again."""
    batch = min(train["batch"], *map(len, pools.values()))
    return batch, math.ceil(max(map(len, pools.values())) / batch)


def train_stage(
    recipe: Recipe,
    encoders: Encoders,
    cases: CaseStore,
    rows: np.ndarray,
    partial: Partial,
    report: Report,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Train `encoders` in place on the given rows of the store; returns the history, a row per epoch."""
    started = time.perf_counter()  # an epoch's seconds hold what comes before it: preparations, the save of the last
    task, train = find_task(recipe.task), recipe.train
    encoders.to(device).to(memory_format=torch.channels_last).train()
    pools = {b: CasePool(cases, seen, rows, device, recipe.look) for b, seen in encoders.branches.items()}
    batch, steps = schedule(pools, train)
    if batch % world.size():  # another batch would be another stage
        raise StageFailed(f"{recipe.task}: a batch of {batch} does not divide among {world.size()} workers")
    learner = Learner(task, encoders, pools, recipe).to(device).to(memory_format=torch.channels_last)
    across_processes(learner).train()
    cast = autocast(device, recipe.precision)
    optimizer = optim.build(learner, train, learner.options())

    # Where to start: from the last epoch of an earlier attempt, else from the parent's encoders.
    history: list[dict[str, Any]] = []
    state = partial.load()
    if state is not None:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        history = json.loads(state["history"])
    else:
        for branch, pool in pools.items():
            learner.tasks[branch].begin(  # type: ignore[operator]
                lambda module, pool=pool: all_features(module, pool, len(pool), pool.size, cast)
            )

    config = learner.each()[0].config
    chances = {
        b: task.sampling(config, functools.partial(pool.labels, units=np.arange(len(pool))))
        for b, pool in pools.items()
    }
    # Buffers are the first process's at the start, and kept equal from then on by the tasks themselves.
    model = DistributedDataParallel(learner, forward_sync_buffers=False) if world.size() > 1 else learner

    for epoch in range(len(history), train["epochs"]):
        orders = {
            b: epoch_order(recipe.seed, epoch, len(pool), batch * steps, task.replacement, chances[b])
            for b, pool in pools.items()
        }
        seen: list[Tensor] = []
        norms: list[Tensor] = []
        parts: dict[str, list[Tensor]] = {}
        for i in range(steps):
            step = epoch * steps + i
            lr = optim.rate(step, train["epochs"] * steps, train)
            for group in optimizer.param_groups:
                group["lr"] = lr
            number_dropout(learner, step)
            now = slice(i * batch, (i + 1) * batch)
            batches = {
                b: Batch(orders[b][now], pool, pool.size, zlib.crc32(f"{recipe.seed}/{b}".encode()), epoch, step)
                for b, pool in pools.items()
            }
            for one in learner.each():
                one.before_step(step)
            with cast():
                total, losses = model(batches)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            for one in learner.each():
                one.after_backward(step)
            grads = [p.grad for p in learner.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm(grads)
            if train["clip"] is not None:
                nn.utils.clip_grads_with_norm_(
                    [p for p in learner.parameters() if p.grad is not None], train["clip"], norm
                )
            seen.append(world.reduce_sum(total.detach()) / world.size())
            norms.append(norm)
            if device.type == "cpu" or i == steps - 1:  # a GPU is not made to wait at every step
                check_finite(recipe.task, seen, norms, epoch * steps, train["epochs"] * steps)
            optimizer.step()
            for b, branch_task in learner.tasks.items():
                branch_task.after_step(batches[b])  # type: ignore[operator]
            for b, loss in losses.items():
                for name, value in loss.parts.items():
                    parts.setdefault(f"{b}.{name}" if len(losses) > 1 else name, []).append(value.detach().float())
        if not all(bool(w.isfinite().all()) for w in encoders.state_dict().values()):
            raise StageFailed(f"{recipe.task}: the weights are not finite after epoch {epoch + 1}")
        seconds, started = time.perf_counter() - started, time.perf_counter()
        spread = [collapse(world.gather(loss.embedding.float())) for loss in losses.values()]
        history.append(
            {
                "epoch": epoch + 1,
                "loss": float(torch.stack(seen).mean()),
                "parts": {n: float(world.reduce_sum(torch.stack(v).mean())) / world.size() for n, v in parts.items()},
                "lr": lr,
                "grad_norm": float(torch.stack(norms).mean()),
                "views_per_second": batch * steps * len(pools) / seconds,
                "embedding_std": min(s for s, _ in spread),
                "effective_rank": min(r for _, r in spread),
                "seconds": seconds,
            }
        )
        if world.rank() == 0 and epoch + 1 < train["epochs"]:
            partial.save(
                {
                    "learner": learner.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "history": json.dumps(history),
                }
            )
        report(history[-1])
    for b, branch_task in learner.tasks.items():
        kept = branch_task.handed_on()  # type: ignore[operator]
        if kept is not encoders.backbones[b]:
            encoders.backbones[b].load_state_dict(kept.state_dict())
    encoders.eval()
    return history


def epoch_order(
    seed: int, epoch: int, units: int, count: int, replacement: bool, chances: np.ndarray | None = None
) -> np.ndarray:
    """The units of an epoch, the same on every process. The last batch is filled up from the front of the order."""
    rng = np.random.default_rng([seed, epoch, units])
    if chances is not None:
        return rng.choice(units, count, p=chances / chances.sum())
    if replacement:
        return rng.integers(0, units, count)
    return np.resize(rng.permutation(units), count)


def number_dropout(module: nn.Module, step: int) -> None:
    """Give every numbered dropout the number of this step."""
    for m in module.modules():
        if isinstance(m, GlobalDropout):
            m.step = step


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
