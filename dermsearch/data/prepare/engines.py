"""Who makes the shards of a store: the cores of this machine (or a Ray cluster: `search.shards`)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from typing import Any

import pyarrow as pa

from dermsearch.data.prepare.shard import make_shard
from dermsearch.errors import UserError, first_line

Engine = Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]


def on_cores(workers: int) -> Engine:
    """Make shards in so many processes of this machine."""
    context = get_context("forkserver")
    if workers > 1:  # what processes import is imported while the release's tables are read
        context.set_forkserver_preload(
            ["__main__", "dermsearch.data.prepare.shard", "pandas"]
        )  # pyarrow imports the last
        with told():
            forkserver.ensure_running()

    def run(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if workers == 1 or len(jobs) < 2:
            yield from map(make_shard, jobs)
            return
        with ProcessPoolExecutor(min(workers, len(jobs)), context, begin) as pool:
            try:
                with told():
                    going = [pool.submit(make_shard, job) for job in jobs]
                pa.array([])  # the first one imports pandas: here, while others work
                for future in as_completed(going):
                    yield future.result()
            except BrokenProcessPool:
                raise UserError(
                    "a process was killed, perhaps for want of memory; the same command continues"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    return run


@contextmanager
def told() -> Iterator[None]:
    """UserError where the machine gives no more processes or threads."""
    try:
        yield
    except (BlockingIOError, RuntimeError) as error:  # "can't start new thread"
        raise UserError(
            f"no more processes can be started here: {first_line(error)}; try --workers 1, or raise `ulimit -u`"
        ) from None


def begin() -> None:
    """What a process does first: Ctrl-C is for the command to hear, and where the command ends, it ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()


def follow() -> None:
    """End this process when the command has ended, be it by a kill."""
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)
