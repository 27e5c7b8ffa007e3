"""A notice to stop, from the run to the processes that train: a word that Ray's head keeps, asked for once a second.

A signal would not do: a worker's main thread is Ray's own, which may not come back to Python before the stage is over,
and processes on other nodes have none to send it. So the word is asked for beside training, which never waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ray.experimental import internal_kv

from dermsearch.training.notice import TOLD
from dermsearch.work.job import Job
from dermsearch.work.record import Record

EVERY = 1.0  # seconds between two looks
SPACE = "dermsearch"


def give(run: str) -> None:
    """Tell all processes of a run, by the name of its place in the store, which no other run has. Nobody waits."""

    def tell() -> None:
        with suppress(Exception):
            internal_kv._internal_kv_put(run, "stop", namespace=SPACE)

    threading.Thread(target=tell, daemon=True).start()


def given(run: str) -> bool:
    """Have they been told? That Ray itself is lost is for another to say."""
    with suppress(Exception):
        return bool(internal_kv._internal_kv_exists(run, namespace=SPACE))
    return False


@contextmanager
def listening(run: str) -> Iterator[None]:
    """While it lasts this process hears of it; what has not begun yet does not begin."""
    if given(run):
        raise KeyboardInterrupt
    ended = threading.Event()

    def listen() -> None:
        while not (ended.wait(EVERY) or TOLD.given):
            TOLD.given = given(run) and not ended.is_set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        TOLD.given = False


def stopped(job: Job) -> Record:
    """What becomes of a job on a notice: nobody reads it, for the run hears of nothing more."""
    return Record(key=job.key, status="stopped", error="the run was told to stop")
