"""What a study may spend. Whatever is reached first ends the run; a larger budget continues it.

Stages, epochs and curricula are booked when they are proposed, in the order of the proposals, so that the same ones
are trained whatever the number of workers. Time is looked at before a stage begins; what is under way finishes.
A stage that the store had before this study asked for it costs nothing. What the study itself paid for is noted in
its results folder: a run that was killed and started again does not get its budget twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dermsearch.study.config import Limits
from dermsearch.words import many

COUNTED = ("curricula", "stages", "epochs")
PAID = "paid.txt"  # a key per line


class Budget:
    """The study's limits, and what is booked of them."""

    def __init__(
        self, limits: Limits | None = None, folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits.model_dump(exclude_none=True) if limits else {}
        self.spent = dict.fromkeys([*COUNTED, "gpu_hours"], 0.0)
        self.ended = ""  # the limit that was reached with something left to do
        self.clock, self.started = clock, clock()
        self.file = folder / PAID if folder else None
        self.paid: set[str] = set()  # keys of stages that this study's runs have begun
        if self.file is not None and self.file.is_file():
            self.paid = set(self.file.read_text().split())

    def book(self, **amounts: float) -> bool:
        """Set these aside, if there is room for all of them."""
        for name, amount in amounts.items():
            if self.spent[name] + amount > self.limits.get(name, float("inf")):
                self.ended = name
                return False
        self.ended = ""  # what had no room before may have some now: others failed and gave theirs back
        self.correct(**amounts)
        return True

    def correct(self, **amounts: float) -> None:
        """More (or less) was spent than was booked."""
        for name, amount in amounts.items():
            self.spent[name] += amount

    def pay(self, key: str) -> None:
        """Note that this study begins a stage. A line is appended, so two runs of it do not disturb each other."""
        if self.file is None or not self.limits or key in self.paid:
            return
        self.paid.add(key)
        with self.file.open("a") as f:
            f.write(f"{key}\n")

    @property
    def hours(self) -> float:
        """Since this run began."""
        return (self.clock() - self.started) / 3600

    def time_is_up(self, gpu_hours_ahead: float) -> bool:
        """May no further stage begin? The argument is what those under way are expected to come to."""
        if self.hours >= self.limits.get("hours", float("inf")):
            self.ended = "hours"
        elif self.spent["gpu_hours"] + gpu_hours_ahead >= self.limits.get("gpu_hours", float("inf")):
            self.ended = "gpu_hours"
        else:
            return False
        return True

    @property
    def out_of_time(self) -> bool:
        """Was some stage left because time was up?"""
        return self.ended in ("hours", "gpu_hours")

    def said(self) -> str:
        """The limit that ended the run, in words; empty if none did."""
        if not self.ended:
            return ""
        return limit(self.ended, self.limits[self.ended])


def limit(name: str, amount: float) -> str:
    """1 stage, 3 curricula, 0.5 GPU-hours."""
    one = {"curricula": "curriculum"}.get(name, name.removesuffix("s")).replace("gpu_", "GPU-")
    return many(amount, one, name.replace("gpu_", "GPU-"))
