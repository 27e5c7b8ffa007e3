"""Work on chunks by threads of one core each: no operation waits for all cores to finish the one before."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def each(work: Callable[[int], None], chunks: Sequence[int], device: torch.device) -> None:
    """Do the work for every chunk: on a CPU by as many threads at a time as torch has, else one after another."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(chunks) == 1:
        for chunk in chunks:
            work(chunk)
    else:
        for _ in crew(threads).map(work, chunks):
            pass


@functools.cache
def crew(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch computes with one core; what it does elsewhere keeps all."""
    ready = Barrier(threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes its number from the process's when first asked
        ready.wait()

    pool = ThreadPoolExecutor(threads, "views", begin)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(threads)  # setting it in one thread sets what new threads and matrix products begin with
    return pool


os.register_at_fork(after_in_child=crew.cache_clear)  # threads stay behind in the parent
