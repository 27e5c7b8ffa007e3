"""A study that a command runs: what is refused beforehand, what a signal means, and what it came to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dermsearch.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from dermsearch.results.board.row import Row
    from dermsearch.results.tables.schema import Results
    from dermsearch.run.run import Outcome
    from dermsearch.study.config import Study

INTERRUPTED = 130


def run_to_the_end(
    study: Study, told: tuple[str, Sequence[str], bool], out: Path, address: str | None, console: Console
) -> Outcome:
    """Run a study; `told` is the file, the overrides and `--quick` that it was made of. Interrupted, it says so."""
    if address is not None and study.compute.engine == "inline":
        raise UserError("--address: joins a Ray cluster, but compute.engine is 'inline'")
    if address is not None and not address.strip():
        raise UserError("--address: is empty; name the head's, such as 10.0.0.1:6379, or auto")
    from dermsearch.run.run import run_study
    from dermsearch.study.load import located

    # Ray tells of a worker's death on standard output, which belongs to the results.
    with continued(console), located(*told), noticed(), redirect_stdout(sys.stderr):
        return run_study(study, out, address, console)


@contextmanager
def continued(console: Console) -> Iterator[None]:
    """What is interrupted in here says how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Interrupted. The same command continues from here.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def noticed() -> Iterator[None]:
    """A scheduler's notice, SIGTERM, is taken as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def show(console: Console, rows: Sequence[Row], title: str, results: Results) -> None:
    """The leaderboard; then the commands that go on, each whole on a line of its own, to be copied."""
    from dermsearch.results.board.leaderboard import render
    from dermsearch.results.board.settled import further

    console.print(render(list(rows), title, results))
    for why, command in further(rows, results):
        console.print(f"{why}:\n  {command}", soft_wrap=True)
