"""What every pretext task promises, see docs/tasks.md."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import TASKS
from dermsearch.testing.claims import claim, named, numbered, strict
from dermsearch.testing.cuda import on_cuda
from dermsearch.testing.group import on_each
from dermsearch.testing.small import (
    BATCH,
    CASES,
    Interrupted,
    Kept,
    SmallStage,
    make_store,
    same,
    timeless,
)
from dermsearch.testing.steps import Steps
from dermsearch.testing.waits import waits_of

SLOW = 0.0005  # a rate at which rounding does not grow
STEPS = CASES // BATCH  # of an epoch


def check_task(
    name: str,
    config: Mapping[str, Any] = MappingProxyType({}),
    backbone: str = "test_resnet",
    processes: int = 1,
) -> None:
    """The installed task of that name, in settings that suit 48 images of 32 pixels in batches of 16.

    With 2 or 4 `processes` these must come to what one comes to.
    """
    task = named(TASKS, name)
    numbered(task)
    strict(name, task.Config)
    small = SmallStage(name, dict(config), backbone)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        learns(small, store)
        goes_on(small, store)
        repeats(small, store)
        resumes(small, store)
        other = make_store(Path(folder) / "other", np.random.default_rng(1).permutation(CASES) % 3)
        alike = same(small.train(store)[0], small.train(other)[0])
        claim(alike != task.supervised, f"{name}: reads labels if, and only if, it is `supervised`")
        if processes > 1:
            divides(small, store, processes)


def learns(small: SmallStage, store: CaseStore) -> None:
    """A step's loss is a number, and all weights learn from it."""
    run = Steps(small, store)
    claim(np.isfinite(run.step()), f"{small.name}: the loss is finite")
    loss = run.backward()  # timm's residual branches begin at zero, so there are gradients behind them from now on
    claim(loss.isfinite() and loss.ndim == 0, f"{small.name}: the loss is a finite scalar")
    for parameter, p in run.encoders.named_parameters():
        claim(p.grad is not None and p.grad.abs().sum() > 0, f"{small.name}: the gradient reaches {parameter}")
    for parameter, p in run.learner.named_parameters():
        claim(p.grad is not None or not p.requires_grad, f"{small.name}: {parameter} has a gradient or wants none")
    claim(set(run.losses) == set(run.encoders.branches), f"{small.name}: gives a loss for every branch")
    for told in run.losses.values():
        shape = BATCH, run.encoders.dim
        claim(told.embedding.shape == shape, f"{small.name}: the embedding is (b, dim), {shape}")
        claim(all(part.isfinite() for part in told.parts.values()), f"{small.name}: parts of the loss are finite")


def goes_on(small: SmallStage, store: CaseStore) -> None:
    """A step runs on a GPU and does not wait for it, or the task says why."""
    run = Steps(small, store)
    run.step()
    found = waits_of(run.step)
    told = run.learner.each()[0].waits
    claim(not found or told, f"{small.name}: no step waits for the device, or `waits` says why: {', '.join(found)}")
    for precision in ("fp32", "bf16"):
        wrong = on_cuda(lambda: small.train(store), told, 0, precision)
        claim(not wrong, f"{small.name}: a step runs on a GPU: {wrong}{' in bf16' * (precision != 'fp32')}")


def repeats(small: SmallStage, store: CaseStore) -> None:
    """Two runs are equal to the bit, whatever the global generators are at."""
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        runs.append(small.train(store))
    (one, first), (two, second) = runs
    kept = same(one, two) and timeless(first) == timeless(second)
    claim(kept, f"{small.name}: draws no random numbers of its own in a step, so two runs are equal to the bit")
    claim(not same(one, small.encoders()), f"{small.name}: changes the encoders")


def resumes(small: SmallStage, store: CaseStore) -> None:
    """Killed after an epoch, then within the next one, and resumed it comes to the same bits."""
    whole, history = small.train(store)
    kept = Kept(step=True)
    for kept.stops in (STEPS, STEPS - 1):
        with suppress(Interrupted):
            small.train(store, kept=kept)
    again, rows = small.train(store, kept=kept)
    equal = same(whole, again) and timeless(history) == timeless(rows)
    claim(equal, f"{small.name}: keeps what it remembers in buffers, so a resumed stage is equal to the bit")


def divides(small: SmallStage, store: CaseStore, processes: int) -> None:
    """Several processes come to what one comes to, to rounding."""
    start = small.encoders().state_dict()
    loss, one = epoch(small, str(store.folder))
    moved = far(start, one)
    for other, many in on_each(processes, epoch, small, str(store.folder)):
        kept = abs(other - loss) <= 1e-3 * abs(loss) and far(one, many) <= 0.02 * moved
        claim(kept, f"{small.name}: {processes} processes come to what one comes to: what looks across images gathers")


def epoch(small: SmallStage, folder: str) -> tuple[float, dict[str, Tensor]]:
    """The loss and the encoders after one epoch in this process, or group of processes."""
    made, history = small.train(CaseStore(folder), epochs=1, lr=SLOW)
    return history[0]["loss"], {name: w.clone() for name, w in made.state_dict().items()}


def far(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Distance of two sets of weights as a share of their length."""
    x, y = (torch.cat([w.double().flatten() for w in each.values()]) for each in (one, other))
    return float((x - y).norm() / x.norm())
