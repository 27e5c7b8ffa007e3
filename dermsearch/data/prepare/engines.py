"""Who makes the shards of a store: the cores of this machine (or a Ray cluster: `search.shards`).

Processes are told by pipes, which go with those that hold them. What multiprocessing brings (semaphores with names, the
socket of a fork server) is deleted by a process of its own, and stays where a kill takes that one too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from queue import SimpleQueue
from typing import Any

from dermsearch.data.prepare.shard import make_shard
from dermsearch.errors import UserError, first_line

Engine = Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]


def on_cores(workers: int) -> Engine:
    """Make shards in so many processes of this machine."""

    def run(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if workers == 1 or len(jobs) < 2:
            yield from map(make_shard, jobs)
            return
        makers: list[Maker] = []
        try:
            try:
                while len(makers) < min(workers, len(jobs)):
                    makers.append(Maker())
            except OSError as error:
                why = f"{first_line(error)}; try --workers 1, or raise `ulimit -u`"
                raise UserError(f"no more processes can be started here: {why}") from None
            yield from shared(jobs, makers)
        finally:
            for maker in makers:
                with suppress(OSError):
                    maker.pipe.send(None)
            for maker in makers:
                maker.process.wait()
                maker.pipe.close()

    return run


class Maker:
    """A process that makes one shard after the other, each when it is told to."""

    def __init__(self) -> None:
        self.pipe, end = Pipe()
        begin = f"import sys; sys.path = {sys.path!r}; from {__name__} import serve; serve({end.fileno()})"
        # Ctrl-C is for the command to hear: what is blocked here, even while it starts, is blocked there for good.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen([sys.executable, "-c", begin], pass_fds=[end.fileno()])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            end.close()  # so that the end of that process is an end of the pipe


def shared(jobs: list[dict[str, Any]], makers: list[Maker]) -> Iterator[dict[str, Any]]:
    """Give each maker a job whenever it has none; yields what comes of them, as it comes."""
    left, busy = iter(jobs), [maker.pipe for maker in makers]
    with whole():
        for pipe in busy:
            pipe.send(next(left))
    while busy:
        ready = wait(busy)
        for pipe in [each for each in busy if each in ready]:
            with whole():
                made = pipe.recv()
                if isinstance(made, dict) and (job := next(left, None)):
                    pipe.send(job)
                else:
                    busy.remove(pipe)
            if isinstance(made, Exception):
                raise made
            yield made


@contextmanager
def whole() -> Iterator[None]:
    """UserError where a maker is gone."""
    try:
        yield
    except (EOFError, OSError):
        raise UserError("a process was killed, perhaps for want of memory; the same command continues") from None


def serve(number: int) -> None:
    """What a maker does: job by job from that pipe, until it is told that there are no more."""
    pipe, jobs = Connection(number), SimpleQueue[dict[str, Any] | None]()
    threading.Thread(target=listen, args=(pipe, jobs), daemon=True).start()
    while job := jobs.get():
        made: dict[str, Any] | Exception
        try:
            made = make_shard(job)
        except Exception as error:
            made = error
            made.add_note(traceback.format_exc())
        with suppress(BrokenPipeError):  # `listen` will have heard of it
            pipe.send(made)


def listen(pipe: Connection, jobs: SimpleQueue[dict[str, Any] | None]) -> None:
    """Hear of jobs, and end this process, whatever it is at, when the command has ended, be it by a kill."""
    try:
        while True:
            jobs.put(pipe.recv())
    finally:
        os._exit(1)
