"""The rate of a fit, chosen before it is trained: whole trainings, judged on training cases that they did not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dermsearch import world
from dermsearch.training.health import StageFailed
from dermsearch.training.under_way import Partial

Try = Callable[[float, Partial], Mapping[str, np.ndarray]]  # what a training at that rate says of the cases kept aside


class Turn:
    """The state of one training among several in a row, behind what those before it came to."""

    def __init__(self, partial: Partial, before: Sequence[float]) -> None:
        self.partial, self.before = partial, list(before)

    def load(self) -> dict[str, Any] | None:
        """The state that is left, where it is of this training."""
        state = self.partial.load()
        return state if state is not None and state.pop("tried", None) == self.before else None

    def left(self, within: bool = False) -> float:
        """Seconds until it is to be kept."""
        return self.partial.left(within)

    def save(self, state: dict[str, Any]) -> None:
        """Keep it, with what was tried."""
        self.partial.save({**state, "tried": self.before})


def chosen(
    rates: Sequence[float], partial: Partial, attempt: Try, truth: Mapping[str, np.ndarray]
) -> tuple[float, Turn]:
    """The rate whose training knows the cases kept aside best, and where the training with it is kept.

    Best is the least cross-entropy, classes alike, on the mean over labels. What was tried before a kill is not tried
    again; a rate at which training diverges is out, and the last one's failure is told where all do.
    """
    left = partial.load() if world.rank() == 0 else None
    losses: list[float] = list(world.from_first((left or {}).get("tried", [])))
    failure: StageFailed | None = None
    for rate in rates[len(losses) :]:
        try:
            found = world.from_first(loss(attempt(rate, Turn(partial, losses)), truth))
            losses.append(found if np.isfinite(found) else float("inf"))  # argmin takes what is no number for the least
        except StageFailed as error:
            failure = error
            losses.append(float("inf"))
    if not np.isfinite(losses).any():
        raise failure or StageFailed(f"diverges at every rate of {', '.join(f'{rate:g}' for rate in rates)}")
    return rates[int(np.argmin(losses))], Turn(partial, losses)


def loss(said: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """The cross-entropy of probabilities by label, over known cases; every class of a label weighs the same."""
    found = []
    for label, likely in said.items():
        known = truth[label] >= 0
        each = -np.log(np.maximum(likely[known, truth[label][known]], 1e-12))
        classes = np.unique(truth[label][known])
        if len(classes):
            found.append(np.mean([each[truth[label][known] == c].mean() for c in classes]))
    return float(np.mean(found)) if found else 0.0
