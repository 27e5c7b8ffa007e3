"""What making a store, or another long command, shows: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from dermsearch.errors import public
from dermsearch.words import many

EVERY = 10  # seconds between two lines


class Watcher:
    """What is told of the progress. By itself it tells nobody."""

    def start(self, cases: int, done: int) -> None: ...

    def advance(self, cases: int) -> None: ...

    def say(self, text: str) -> None: ...


class Bar(Watcher):
    """Done, rate, and how long it will take."""

    def __init__(self, console: Console, doing: str = "Preparing", noun: str = "case", several: str = "cases") -> None:
        self.console, self.noun, self.several = console, noun, several
        self.bar = Progress(
            TextColumn(doing),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + several + "  {task.fields[rate]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.said = time.monotonic()
        self.started = False

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def start(self, cases: int, done: int) -> None:
        self.cases, self.first, self.done, self.began = cases, done, done, time.monotonic()
        self.started = True
        self.task = self.bar.add_task("", total=cases, completed=done, rate="")

    def advance(self, cases: int) -> None:
        self.done += cases
        now = time.monotonic()
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        text = f"{rate:,.0f} {self.several}/s, {(self.cases - self.done) / max(rate, 1e-9):,.0f} s left"
        self.bar.update(self.task, completed=self.done, rate=text)
        if not self.console.is_terminal and now - self.said > EVERY:
            self.said = now
            self.say(f"{self.done:,} of {many(self.cases, self.noun, self.several)}, {text}")

    def say(self, text: str) -> None:
        self.console.print(public(text), highlight=False, soft_wrap=True)
