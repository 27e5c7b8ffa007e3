"""Train one stage: plain PyTorch, under any number of processes, from wherever it was left."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.errors import first_line
from dermsearch.models.artifact import ENCODERS, Artifact, Part
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import AnyTask, Batch, Loss, Material, Target, find_task
from dermsearch.settings import Pixels
from dermsearch.training import optim
from dermsearch.training.health import StageFailed, check_finite, collapse, peak_memory
from dermsearch.training.learner import Learner, Recipe, WholeImages, compile_networks, number_dropout, schedule
from dermsearch.training.memory import keep_memory
from dermsearch.training.precision import autocast
from dermsearch.training.validation import over, set_modes, validated
from dermsearch.words import many

__all__ = ["Learner", "Partial", "Recipe", "StageFailed", "Trained", "number_dropout", "train_stage"]


class Unfit(Exception):
    """The state that was left is not one of this stage."""


class Partial(Protocol):
    """Where a stage under way is kept between epochs."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    history: list[dict[str, Any]]  # a row per epoch
    parts: dict[str, Part]  # what is handed on, by kind


Report = Callable[[dict[str, Any]], None]
Watch = Callable[[int, Mapping[str, nn.Module]], dict[str, float]]  # (epoch, backbones by branch) -> more columns


def train_stage(
    recipe: Recipe,
    encoders: Encoders,
    cases: CaseStore,
    rows: np.ndarray,
    partial: Partial,
    report: Report,
    device: torch.device,
    heldout: np.ndarray | None = None,
    watch: Watch | None = None,
    compiled: bool = False,
    until: int = 0,
    artifact: Artifact = MappingProxyType({}),
    task: type[AnyTask] | None = None,
    target: Target | None = None,
    pixels: Pixels = "auto",
) -> Trained:
    """Train `encoders` in place on the given rows of the store, from the parent's `artifact`; they are handed on too.

    The recipe names a pretext task, or what is given as `task`; `target` are other cases, for a fit that needs some.

    `heldout` are the rows whose loss ends the stage early, where the recipe has patience; `watch` may look at the
    backbones after an epoch and add to its row of the history. With `until` it stops after that epoch, short of the end
    that its schedule knows of, and `partial` keeps what going on from there needs. `pixels`: where those of a GPU lie.
    """
    started = time.perf_counter()  # an epoch's seconds hold what comes before it: preparations, the save of the last
    train, task = recipe.train, task or find_task(recipe.task)
    if device.type == "cpu":
        keep_memory()
    encoders.to(device).to(memory_format=torch.channels_last).train()
    given = Material(encoders, cases, rows, device, recipe.look, target)
    pools = task.pools(given)
    batch, steps = schedule(task, pools, train)
    total_steps = train["epochs"] * steps
    if batch % (train["accumulate"] * world.size()):  # another batch would be another stage
        among = many(world.size(), "worker") + (f" x {train['accumulate']} micro-batches" * (train["accumulate"] > 1))
        raise StageFailed(f"{recipe.task}: a batch of {batch} does not divide among {among}")
    unseen = {}
    if train["patience"] and heldout is not None:
        unseen = task.pools(replace(given, rows=heldout))
    for pool in [*pools.values(), *unseen.values()]:
        pool.where = pixels
    if train["patience"] and not (unseen and all(map(len, unseen.values()))):
        raise StageFailed(f"{recipe.task}: patience needs validation images in every branch")
    few = min(map(len, unseen.values()), default=batch)
    if task.contrasts and few < batch // train["accumulate"]:
        raise StageFailed(f"{recipe.task}: patience needs as many validation images as a batch has, not {few}")
    learner = Learner(task, encoders, pools, recipe, artifact).to(device).to(memory_format=torch.channels_last)
    across_processes(learner).train()
    cast = autocast(device, recipe.precision)
    optimizer = optim.build(learner, train, learner.options())

    # Where to start: from the last epoch of an earlier attempt, else from the parent's encoders.
    history: list[dict[str, Any]] = []
    state = world.from_first(partial.load() if world.rank() == 0 else None)
    if state is not None:
        history = take_up(state, learner, optimizer)
    else:
        learner.tell("begin", WholeImages(pools, cast))

    if compiled:
        compile_networks(learner)
    # Buffers are the first process's at the start, and kept equal from then on by the tasks themselves.
    model = DistributedDataParallel(learner, forward_sync_buffers=False) if world.size() > 1 else learner
    peak_memory(device)

    ended = bool(history) and over(history, train["patience"])  # within a segment of it
    with ExitStack() as ending:
        for pool in [*pools.values(), *unseen.values()]:
            ending.callback(pool.close)
        for epoch in range(len(history), len(history) if ended else until or train["epochs"]):
            learner.tell("begin_epoch", WholeImages(pools, cast), epoch)
            orders = learner.orders(epoch, pools, batch * steps)
            shares = [{b: order[i * batch : (i + 1) * batch] for b, order in orders.items()} for i in range(steps)]
            coming = (micro_batches(pools, each, (epoch, epoch * steps + i), recipe) for i, each in enumerate(shares))
            learner.announce(pools, [batches for step in coming for batches in step])
            seen: list[Tensor] = []
            norms: list[Tensor] = []
            parts: dict[str, list[Tensor]] = {}
            for i in range(steps):
                step = epoch * steps + i
                lr = optim.set_step(optimizer, step, total_steps, train)
                at = epoch, step
                total, losses = forward_backward(model, learner, optimizer, pools, shares[i], at, recipe, cast)
                norm = clip(learner, train["clip"])
                seen.append(world.reduce_sum(total) / world.size())
                norms.append(norm)
                if device.type == "cpu" or i == steps - 1:  # a GPU is not made to wait at every step
                    since = i if device.type == "cpu" else 0
                    check_finite(recipe.task, seen[since:], norms[since:], epoch * steps + since, total_steps)
                optimizer.step()
                learner.tell("after_step", {b: own for b, _, own in losses[-len(pools) :]})
                for b, loss, _ in losses:
                    for name, value in loss.parts.items():
                        column = f"{b}.{name}" if len(pools) > 1 else name
                        parts.setdefault(column, []).append(value.detach().float())
            learnt = [*encoders.state_dict().values(), *(p for p in learner.parameters() if p.requires_grad)]
            if not all(bool(w.isfinite().all()) for w in learnt):
                raise StageFailed(f"{recipe.task}: the weights are not finite after epoch {epoch + 1}")
            seconds, started = time.perf_counter() - started, time.perf_counter()
            spread = [collapse(world.gather(loss.embedding.float())) for _, loss, _ in losses[-len(pools) :]]
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": float(torch.stack(seen).mean()),
                    "parts": {
                        n: float(world.reduce_sum(torch.stack(v).mean())) / world.size() for n, v in parts.items()
                    },
                    "lr": lr,
                    "grad_norm": float(torch.stack(norms).mean()),
                    "images_per_second": batch * steps * len(pools) / seconds,
                    "embedding_std": min(s for s, _ in spread),
                    "effective_rank": min(r for _, r in spread),
                    "seconds": seconds,
                    "peak_memory": peak_memory(device),
                }
            )
            if train["patience"]:
                micro, at = batch // train["accumulate"], (epoch, (epoch + 1) * steps - 1)
                held, held_parts = validated(learner, unseen, micro, recipe.seed, at, cast)
                history[-1] |= {"val_loss": held, "val_parts": held_parts}
            if watch is not None:
                modes = [(m, m.training) for m in learner.modules()]
                history[-1] |= watch(epoch + 1, learner.handed_on())
                set_modes(modes)
            last = epoch + 1 == train["epochs"] or over(history, train["patience"])
            if world.rank() == 0 and (until or not last):
                partial.save(
                    {
                        "learner": learner.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": json.dumps(history),
                    }
                )
            report(history[-1])
            if last:
                break
    for b, kept in learner.handed_on().items():
        if kept is not encoders.backbones[b]:
            encoders.backbones[b].load_state_dict(kept.state_dict())
    encoders.eval()
    return Trained(history, {ENCODERS: encoders.part(), **learner.hands_on()})


def take_up(state: dict[str, Any], learner: Learner, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Go on from a state: fills learner and optimiser, and returns the epochs behind it. `Unfit` spoils both."""
    try:
        optimizer.load_state_dict(state["optimizer"])
        learner.load_state_dict(state["learner"])
        return json.loads(state["history"])
    except torch.OutOfMemoryError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if "allocate memory" in str(error) or "CUDA error" in str(error):
            raise
        raise Unfit(first_line(error)) from None


def forward_backward(
    model: nn.Module,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    pools: Mapping[str, CasePool],
    shares: Mapping[str, np.ndarray],
    at: tuple[int, int],
    recipe: Recipe,
    cast: Callable[[], Any],
) -> tuple[Tensor, list[tuple[str, Loss, Batch]]]:
    """The gradients of a step: the mean over its micro-batches, each a global batch to whatever looks across images.

    Returns the loss, and what each branch's task said of each micro-batch.
    """
    (_, step), count = at, recipe.train["accumulate"]
    for one in learner.each():
        one.before_step(step)
    optimizer.zero_grad(set_to_none=True)
    total, found = torch.zeros((), device=next(learner.parameters()).device), []
    for micro, batches in enumerate(micro_batches(pools, shares, at, recipe)):
        number_dropout(learner, step * count + micro)
        # Gradients are exchanged once, with the last micro-batch.
        waiting = isinstance(model, DistributedDataParallel) and micro < count - 1
        with model.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            with cast():
                value, losses = model(batches)
            (value / count).backward()
        total += value.detach() / count
        found += [(b, loss, batches[b]) for b, loss in losses.items()]
        if micro < count - 1:
            learner.tell("after_micro", batches)
    for one in learner.each():
        one.after_backward(step)
    return total, found


def micro_batches(
    pools: Mapping[str, CasePool], shares: Mapping[str, np.ndarray], at: tuple[int, int], recipe: Recipe
) -> Iterator[dict[str, Batch]]:
    """A step's batches by pool, one micro-batch after the other; `shares` are the step's units, `at` epoch and step."""
    seeds = {b: zlib.crc32(f"{recipe.seed}/{b}".encode()) for b in shares}
    parts = {b: np.split(units, recipe.train["accumulate"]) for b, units in shares.items()}
    for micro in range(recipe.train["accumulate"]):
        yield {b: Batch(each[micro], pools[b], pools[b].size, seeds[b], *at) for b, each in parts.items()}


def clip(learner: Learner, most: float | None) -> Tensor:
    """The norm of all gradients; those of each branch are cut to `most`, since branches do not know of each other."""
    norms = []
    for task in learner.each():
        moved = [p for p in task.parameters() if p.grad is not None]
        norms.append(nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None]))
        if most is not None:
            nn.utils.clip_grads_with_norm_(moved, most, norms[-1])
    return torch.stack(norms).norm()
