"""Processes that form one group over gloo on the loopback, started once for all tests of a session."""

import importlib.util
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATIENCE = 240  # seconds that a call may take


class Group:
    """`size` processes. Calling it with a function of a test module runs the function on every one of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.place = tempfile.TemporaryDirectory()
        context = get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, rank, size, f"{self.place.name}/meet"), daemon=True)
            process.start()
            there.close()
            self.ends.append(here)
            self.processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What `function(*args)` came to on every process, in rank order. Arguments and results travel by value."""
        call = pickle.dumps((function.__code__.co_filename, function.__name__, args))
        for end in self.ends:
            end.send_bytes(call)
        found = []
        for rank, end in enumerate(self.ends):
            if not end.poll(PATIENCE):
                self.stop()
                raise TimeoutError(f"process {rank} of {self.size} says nothing")
            found.append(pickle.loads(end.recv_bytes()))
        wrong = [text for good, text in found if not good]
        if wrong:
            raise AssertionError("\n".join(wrong))
        return [value for _, value in found]

    def stop(self) -> None:
        """End the processes; a second time does nothing."""
        for process in self.processes:
            process.terminate()
            process.join()
        self.place.cleanup()
        self.processes = []


def serve(pipe: Connection, rank: int, size: int, meet: str) -> None:
    """The life of one process: answer calls until it is ended."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
    while True:
        try:
            file, name, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = (True, getattr(module_at(file), name)(*args))
        except Exception:
            answer = (False, f"process {rank} of {size}: {traceback.format_exc()}")
        pipe.send_bytes(pickle.dumps(answer))


@cache
def module_at(file: str) -> ModuleType:
    """A test module by its path: how pytest names it depends on how pytest was called."""
    name = f"called_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def group(size: int) -> Group:
    """The one group of that size."""
    return Group(size)


@pytest.fixture(scope="session")
def two() -> Iterator[Group]:
    """A group of two processes."""
    yield group(2)
    group(2).stop()


@pytest.fixture(scope="session")
def four() -> Iterator[Group]:
    """A group of four processes."""
    yield group(4)
    group(4).stop()
