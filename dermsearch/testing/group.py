"""Several processes that form one group over gloo on the loopback."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

PATIENCE = 240  # seconds


def on_each(size: int, function: Callable[..., Any], *given: Any) -> list[Any]:
    """What a module's function comes to on every process, by rank."""
    with (
        tempfile.TemporaryDirectory() as place,
        ProcessPoolExecutor(size, mp_context=get_context("spawn")) as processes,
    ):
        told = [processes.submit(_member, rank, size, f"{place}/meet", function, given) for rank in range(size)]
        return [each.result(PATIENCE) for each in told]


def _member(rank: int, size: int, meet: str, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    wait = timedelta(seconds=PATIENCE // 4)  # for one that has failed
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size, timeout=wait)
    try:
        return function(*given)
    finally:
        dist.destroy_process_group()
