"""A stage under way: the epoch that it is in, and the states from which it goes on to the bit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dermsearch import world
from dermsearch.data.store.pool import CasePool
from dermsearch.errors import first_line
from dermsearch.pretext.base import Batch, Loss
from dermsearch.training.learner import Learner, planned
from dermsearch.training.notice import TOLD, Noticed

History = list[dict[str, Any]]  # a row per epoch
HEARS = 3.0  # seconds after which a notice is heard by all processes, of whom the first alone is asked


class Unfit(Exception):
    """The state that was left is not one of this stage."""


class Partial(Protocol):
    """Where the state of a stage under way is kept; the first process's is the one that counts."""

    def load(self) -> dict[str, Any] | None: ...

    def left(self, within: bool = False) -> float:
        """Seconds until a state is due after an epoch, or `within` one, where it may never be."""

    def save(self, state: dict[str, Any]) -> None: ...


@dataclass
class Epoch:
    """An epoch under way: the order of its units, and what its steps came to so far."""

    number: int  # from 0 on
    orders: Mapping[str, np.ndarray]  # by pool, as they were planned when it began
    began: float  # by `time.perf_counter`
    losses: list[Tensor] = field(default_factory=list)  # of every step, and of all processes
    norms: list[Tensor] = field(default_factory=list)
    parts: dict[str, list[Tensor]] = field(default_factory=dict)  # of every micro-batch, and of this process alone

    @property
    def done(self) -> int:
        """Steps that it has behind it."""
        return len(self.losses)

    @property
    def seconds(self) -> float:
        """That it took so far, in all attempts together."""
        return time.perf_counter() - self.began

    def share(self, step: int, batch: int) -> dict[str, np.ndarray]:
        """The units of one of its steps, by pool."""
        return {b: order[step * batch : (step + 1) * batch] for b, order in self.orders.items()}

    def note(self, found: list[tuple[str, Loss, Batch]]) -> None:
        """The parts of a step's losses, under names of each branch's own where there are several."""
        for b, loss, _ in found:
            for name, value in loss.parts.items():
                column = f"{b}.{name}" if len(self.orders) > 1 else name
                self.parts.setdefault(column, []).append(value.detach().float())

    def means(self) -> tuple[float, dict[str, float], float]:
        """Over its steps: the loss, its parts, and the norm of the gradient."""
        parts = {n: float(world.reduce_sum(torch.stack(v).mean())) / world.size() for n, v in self.parts.items()}
        return float(torch.stack(self.losses).mean()), parts, float(torch.stack(self.norms).mean())

    def state(self) -> dict[str, Any]:
        """All of it, every process's parts in a row of their own: asked of all processes at the same step."""
        return {
            "orders": {b: torch.from_numpy(order) for b, order in self.orders.items()},
            "seconds": self.seconds,
            "losses": torch.stack(self.losses),
            "norms": torch.stack(self.norms),
            "parts": {name: world.gather(torch.stack(values)[None]) for name, values in self.parts.items()},
        }

    @classmethod
    def of(cls, state: dict[str, Any], number: int, pools: Mapping[str, CasePool], steps: int, count: int) -> Epoch:
        """The one that was left, of so many steps with so many units by pool. Of other processes parts are the mean."""
        orders = planned({b: order.numpy() for b, order in state["orders"].items()}, pools, count)
        device = next(iter(pools.values())).device
        losses, norms = (list(state[name].to(device).unbind()) for name in ("losses", "norms"))
        if not 0 < len(losses) == len(norms) < steps:
            raise ValueError(f"{len(losses)} of its {steps} steps are done")
        parts = {}
        for name, of_all in state["parts"].items():
            own = of_all[world.rank()] if len(of_all) == world.size() else of_all.mean(0)
            parts[name] = list(own.to(device).unbind())
        return cls(number, orders, time.perf_counter() - state["seconds"], losses, norms, parts)


class States:
    """Of a stage under way: takes up the one that was left, saves those that follow, in time or on a notice."""

    def __init__(self, partial: Partial, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        self.partial, self.learner, self.optimizer = partial, learner, optimizer
        self.begin()

    def begin(self) -> None:
        """An epoch begins, or what follows a state: the clock is asked after one step."""
        self.steps, self.ask, self.since = 0, 1, time.monotonic()

    def take_up(self, pools: Mapping[str, CasePool], steps: int, count: int) -> tuple[History, Epoch | None] | None:
        """The epochs behind the state that was left, and that within which it was; None where there is no state.

        What the first process finds all go on from. One that is `Unfit` spoils learner and optimiser.
        """
        state = world.from_first(self.partial.load() if world.rank() == 0 else None)
        if state is None:
            return None
        with fitting():
            self.optimizer.load_state_dict(state["optimizer"])
            self.learner.load_state_dict(state["learner"])
            history = json.loads(state["history"])
            within = state.get("within")
            return history, within and Epoch.of(within, len(history), pools, steps, count)

    def within(self, history: History, epoch: Epoch) -> None:
        """After a step that another one follows in its epoch: saves if it is time to, by the first process's clock.

        The others have to be told, and to tell makes a GPU wait. So it says how many steps they need not ask again:
        those until a state is due, or a notice to be heard, at the pace so far, but no more than there were.
        """
        self.steps += 1
        if self.steps < self.ask:
            return
        noticed, more = world.from_first((TOLD.given, self.more()) if world.rank() == 0 else None)
        if more and not noticed:
            self.ask = self.steps + more
        else:
            self.save(history, epoch.state())
            self.begin()
        if noticed:
            raise Noticed

    def more(self) -> int:
        """Steps until this process's clock is to be looked at again; 0 where a state is due."""
        left = self.partial.left(within=True)
        if left <= 0:
            return 0
        pace = (time.monotonic() - self.since) / self.steps
        return max(1, min(self.steps, int(min(left, HEARS) / pace))) if world.size() > 1 and pace else 1

    def after(self, history: History, ends: bool, needed: bool) -> None:
        """After an epoch. Where training `ends` for now a state is saved if one is `needed`, whatever the time."""
        noticed = world.from_first(TOLD.given)
        if noticed or (needed if ends else self.partial.left() <= 0):
            self.save(history)
        if noticed:
            raise Noticed

    def save(self, history: History, within: dict[str, Any] | None = None) -> None:
        """The first process's; others only take part in what is `within` it."""
        if world.rank() == 0:
            state = {
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": json.dumps(history),
            }
            self.partial.save(state | ({"within": within} if within else {}))


@contextmanager
def fitting() -> Iterator[None]:
    """What is not of this stage is `Unfit`; what the machine lacks is told as it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if "allocate memory" in str(error) or "CUDA error" in str(error):
            raise
        raise Unfit(first_line(error)) from None
