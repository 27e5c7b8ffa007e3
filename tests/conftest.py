"""Tests run side by side in three processes, since a quarter of the time they wait.

A test that measures time or memory runs alone: its file comes at the end, since all others wait meanwhile.

`pytest -m "not slow"` is the fast part: no whole runs, no kills, hardly any group of processes. `pytest -m long` is
what takes minutes, most of it shown elsewhere by a shorter test: run before a release.
"""

from __future__ import annotations

import fcntl
import gc
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

# One thread per process, as studies have by default: processes with a thread per core would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are niced by 15: beside another test process they would get a thirtieth of a core, and time out.
os.environ.setdefault("RAY_worker_niceness", "0")

import hypothesis
import pytest

# What the terminal or the job that starts the tests has set is not theirs, nor that of the commands that they start.
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "RAY_ADDRESS", "RAY_TMPDIR"):
    os.environ.pop(name, None)
os.umask(0o022)
# An example may take as long as the machine has other work; what must not take long says so by processor time.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
gc.set_threshold(20_000)  # of a million objects that are imported none is garbage
DOORS = Path(tempfile.gettempdir())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: measures time or memory, so no other test runs beside it")
    config.addinivalue_line(
        "markers", "long: takes minutes and is left out; `pytest -m long` runs them, before a release"
    )
    config.addinivalue_line("markers", 'slow: takes seconds or starts much; pytest -m "not slow" leaves it out')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = {item.path for item in items if item.get_closest_marker("alone")}
    items.sort(key=lambda item: item.path in last)


@contextmanager
def turn(alone: bool, run: str) -> Generator[None]:
    """Wait until a test may run: who wants to be alone shuts the door behind those that run, then waits for them."""
    with (DOORS / f"tests-{run}-door").open("w") as door, (DOORS / f"tests-{run}-room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:  # one process
        return (yield)
    with turn(item.get_closest_marker("alone") is not None, run):
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    for name in ("door", "room"):
        if run is not None:
            (DOORS / f"tests-{run}-{name}").unlink(missing_ok=True)
