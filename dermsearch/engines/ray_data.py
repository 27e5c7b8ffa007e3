"""Shards of a case store, made on all CPUs of a Ray cluster by Ray Data."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from dermsearch.data.prepare.engines import Engine
from dermsearch.data.prepare.shard import make_shard
from dermsearch.engines.ray_cluster import Cluster
from dermsearch.errors import UserError
from dermsearch.study.config import Compute

LOOK = 0.2  # seconds between two looks at whether Ray is there


def on_cluster(address: str) -> Engine:
    """Every node must see the release and the store under the same path or URI. `local` starts a Ray here."""

    def run(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not jobs:
            return
        with Cluster(Compute(), None if address == "local" else address) as cluster:
            cluster.open()
            import ray.data

            logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # importing it has set another level
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = [{"job": json.dumps(job)} for job in jobs]
            made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_make)  # a task per shard
            for result in guarded(made.iter_rows, cluster.check):
                if result["error"]:
                    raise UserError(result["error"])
                yield result

    return run


def guarded(rows: Callable[[], Iterable[dict[str, Any]]], check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The rows as they come. What `check` raises ends it, whatever Ray waits for, or makes of its own death."""
    found = SimpleQueue[dict[str, Any] | BaseException | None]()

    def follow() -> None:
        try:
            for row in rows():
                found.put(row)
            found.put(None)
        except BaseException as error:
            found.put(error)

    threading.Thread(target=follow, daemon=True).start()
    while True:
        try:
            row = found.get(timeout=LOOK)
        except Empty:
            check()
            continue
        if row is None:
            return
        if isinstance(row, BaseException):
            check()
            raise row
        yield row


def _make(row: dict[str, str]) -> dict[str, Any]:
    """A shard's result. What a user can mend travels as a sentence: Ray would wrap it in tracebacks."""
    try:
        return {**make_shard(json.loads(row["job"])), "error": ""}
    except UserError as error:
        return {"number": -1, "cases": 0, "bad": 0, "error": str(error)}
