"""The commands in this process, over stand-ins: exit code, what was said, and a clock that does not wait."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from endurance.bench import stand_in

import dermsearch.results.board.opened
import dermsearch.results.pictures.figures  # noqa: F401  both keep what they import: before anything is replaced
from dermsearch.cli import main as cli
from dermsearch.cli import store as cli_store
from dermsearch.engines import inline
from dermsearch.run import progress, record
from dermsearch.run import run as running
from dermsearch.search.space.checks import space_of
from dermsearch.search.tree import look_up
from dermsearch.storage import files
from dermsearch.storage.leases import Claims
from dermsearch.study.config import Study
from dermsearch.upkeep import inventory
from dermsearch.work.cases import open_store

LONGEST = 300  # seconds that a command over stand-ins may take on a machine with much else to do
PATIENCE = 3600  # seconds that it may wait for others, by a clock that jumps


class Hung(BaseException):
    """A command goes on for ever."""


class Clock:
    """Whoever sleeps wakes at once, and later."""

    def __init__(self) -> None:
        self.now, self.until = 0.0, PATIENCE

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.until:
            raise Hung("waits for ever")

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@contextlib.contextmanager
def stage(cases: Path) -> Iterator[None]:
    """Stand-ins for what trains, judges, draws and waits; what reads side by side reads in order."""
    slept = SimpleNamespace(**{**vars(time), "sleep": CLOCK.sleep})
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        patch.setattr(running, "cache_folder", lambda store: cases)
        patch.setattr(running, "check", space_of)
        patch.setattr(running, "check_cases", lambda *of: None)
        patch.setattr(running, "Claims", functools.partial(Claims, clock=CLOCK))
        patch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
        patch.setattr(inline, "time", slept)
        patch.setattr(files, "time", slept)
        patch.setattr(progress, "EVERY", 1e6)
        patch.setattr("dermsearch.results.load", lambda folder: None)
        patch.setattr("dermsearch.results.board.leaderboard.leaderboard", lambda results: [])
        patch.setattr("dermsearch.results.pictures.figures.figures", lambda folder: [])
        patch.setattr("dermsearch.study.load.located", lambda *of: contextlib.nullcontext())
        for reader in (look_up, record, inventory):
            patch.setattr(reader, "READERS", 1)
        yield
        open_store.cache_clear()


def command(do: Callable[[], None]) -> tuple[int, str]:
    """What a command comes to by the rules of the console script: exit code and all that was said."""

    def ring(*of: object) -> None:
        raise Hung("".join(traceback.format_stack(sys._getframe(1), 12)))

    said, before = io.StringIO(), (cli.app, CLOCK.until)
    open_store.cache_clear()
    cli.app, CLOCK.until = do, CLOCK.now + PATIENCE
    outer = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main()
        return 0, said.getvalue()
    except SystemExit as leaving:
        return int(leaving.code or 0), said.getvalue()
    except typer.Exit as leaving:
        return leaving.exit_code, said.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, outer)
        cli.app, CLOCK.until = before
        open_store.cache_clear()


def run(study: Study, out: Path) -> tuple[int, str]:
    """`dermsearch run`."""

    def go() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dermsearch.study.load.load_study", lambda *of: study)
            cli.run("study.yaml", out=out, address=None, as_json=False)

    return command(go)


def verify(store: str, repair: bool = False) -> tuple[int, str]:
    """`dermsearch store verify`."""
    return command(lambda: cli_store.verify(store, repair))
