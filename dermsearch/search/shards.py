"""Shards of a case store, made on all CPUs of a Ray cluster by Ray Data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dermsearch.config import Compute
from dermsearch.data.engines import Engine
from dermsearch.data.shard import make_shard
from dermsearch.search.cluster import Cluster


def on_cluster(address: str) -> Engine:
    """Every node must see the release and the store under the same path or URI. `local` starts a Ray here."""

    def run(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        with Cluster(Compute(), None if address == "local" else address) as cluster:
            cluster.open()
            import ray

            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            rows = [{"job": json.dumps(job)} for job in jobs]
            made = ray.data.from_items(rows, override_num_blocks=max(1, len(rows))).map(_make)
            yield from made.iter_rows()

    return run


def _make(row: dict[str, str]) -> dict[str, Any]:
    return make_shard(json.loads(row["job"]))
