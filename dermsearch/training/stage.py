"""Train one stage: plain PyTorch, under any number of processes, from wherever it was left."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.models.artifact import ENCODERS, Artifact, Part
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import AnyTask, Batch, Loss, Material, Target, find_task
from dermsearch.settings import Pixels
from dermsearch.training import optim
from dermsearch.training.health import StageFailed, check_finite, collapse, peak_memory
from dermsearch.training.learner import Learner, Recipe, WholeImages, compile_networks, number_dropout, schedule
from dermsearch.training.memory import keep_memory
from dermsearch.training.notice import heard
from dermsearch.training.precision import autocast
from dermsearch.training.under_way import Epoch, History, Partial, States
from dermsearch.training.validation import over, set_modes, validated
from dermsearch.words import many

__all__ = ["Learner", "Partial", "Recipe", "StageFailed", "Trained", "number_dropout", "train_stage"]


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    history: History
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
    On a notice to stop `partial` keeps the step that it has come to, and `Noticed` is raised.
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

    # Where to start: from the state of an earlier attempt, else from the parent's encoders.
    states = States(partial, learner, optimizer)
    found = states.take_up(pools, steps, batch * steps)
    history, epoch = found or ([], None)
    if found is None:
        learner.tell("begin", WholeImages(pools, cast))

    if compiled:
        compile_networks(learner)
    # Buffers are the first process's at the start, and kept equal from then on by the tasks themselves.
    model = DistributedDataParallel(learner, forward_sync_buffers=False) if world.size() > 1 else learner
    peak_memory(device)

    ended = bool(history) and over(history, train["patience"])  # within a segment of it
    with heard(), ExitStack() as ending:
        for pool in [*pools.values(), *unseen.values()]:
            ending.callback(pool.close)
        for number in range(len(history), len(history) if ended else until or train["epochs"]):
            for one in learner.each():
                one.enter_epoch(number)
            if epoch is None:
                learner.tell("begin_epoch", WholeImages(pools, cast), number)
                epoch = Epoch(number, learner.orders(number, pools, batch * steps), started)
            states.begin()
            ahead = range(epoch.done, steps)
            coming = [micro_batches(pools, epoch.share(i, batch), (number, number * steps + i), recipe) for i in ahead]
            learner.announce(pools, [batches for step in coming for batches in step])
            for i in ahead:
                step = number * steps + i
                lr = optim.set_step(optimizer, step, total_steps, train)
                share, now = epoch.share(i, batch), (number, step)
                total, losses = forward_backward(model, learner, optimizer, pools, share, now, recipe, cast)
                epoch.losses.append(world.reduce_sum(total) / world.size())
                epoch.norms.append(clip(learner, train["clip"]))
                if device.type == "cpu" or i == steps - 1:  # a GPU is not made to wait at every step
                    since = i if device.type == "cpu" else 0
                    seen = epoch.losses[since:], epoch.norms[since:]
                    check_finite(recipe.task, *seen, number * steps + since, total_steps)
                optimizer.step()
                learner.tell("after_step", {b: own for b, _, own in losses[-len(pools) :]})
                epoch.note(losses)
                if i < steps - 1:
                    states.within(history, epoch)
            learnt = [*encoders.state_dict().values(), *(p for p in learner.parameters() if p.requires_grad)]
            if not all(bool(w.isfinite().all()) for w in learnt):
                raise StageFailed(f"{recipe.task}: the weights are not finite after epoch {number + 1}")
            seconds, started = epoch.seconds, time.perf_counter()
            spread = [collapse(world.gather(loss.embedding.float())) for _, loss, _ in losses[-len(pools) :]]
            mean, parts, norm = epoch.means()
            history.append(
                {
                    "epoch": number + 1,
                    "loss": mean,
                    "parts": parts,
                    "lr": lr,
                    "grad_norm": norm,
                    "images_per_second": batch * steps * len(pools) / seconds,
                    "embedding_std": min(s for s, _ in spread),
                    "effective_rank": min(r for _, r in spread),
                    "seconds": seconds,
                    "peak_memory": peak_memory(device),
                }
            )
            if train["patience"]:
                micro, at = batch // train["accumulate"], (number, (number + 1) * steps - 1)
                held, held_parts = validated(learner, unseen, micro, recipe.seed, at, cast)
                if not math.isfinite(held):  # argmin would take it for the least
                    raise StageFailed(f"{recipe.task}: loss on validation images is {held} after epoch {number + 1}")
                history[-1] |= {"val_loss": held, "val_parts": held_parts}
            if watch is not None:
                modes = [(m, m.training) for m in learner.modules()]
                history[-1] |= watch(number + 1, learner.handed_on())
                set_modes(modes)
            last = number + 1 == train["epochs"] or over(history, train["patience"])
            states.after(history, ends=last or number + 1 == until, needed=bool(until))
            epoch = None
            report(history[-1])
            if last:
                break
    for b, kept in learner.handed_on().items():
        if kept is not encoders.backbones[b]:
            encoders.backbones[b].load_state_dict(kept.state_dict())
    encoders.eval()
    return Trained(history, {ENCODERS: encoders.part(), **learner.hands_on()})


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
