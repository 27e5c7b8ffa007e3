"""One stage on several workers, under Ray Train."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any


def on_workers(work: Callable[[dict[str, Any]], dict[str, Any]], job: dict[str, Any], storage: str) -> dict[str, Any]:
    """Run `work(job)` on `job['workers']` processes that form one group; the first one's record comes back.

    Ray Train restarts the group when a worker dies; `work` then finds the state of its last epoch in the stage
    store. `storage` is a place that all nodes reach, for Ray Train's own bookkeeping; nothing in it is kept.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": work, "job": job},
        torch_config=TorchConfig(backend="nccl" if job["gpus"] else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job["workers"],
            use_gpu=bool(job["gpus"]),
            resources_per_worker={"CPU": job["threads"], **({"GPU": job["gpus"]} if job["gpus"] else {})},
        ),
        run_config=RunConfig(
            name=f"{job['key']}-{time.time_ns()}",  # a name that comes again would resume the old run
            storage_path=storage,
            failure_config=FailureConfig(max_failures=job["retries"], controller_failure_limit=job["retries"]),
        ),
    )
    try:
        record = json.loads(trainer.fit().return_value)
    except Exception as error:  # Ray wraps whatever a worker died of
        lines = [line for line in str(error).splitlines() if line.strip()]
        record = {
            "key": job["key"],
            "status": "failed",
            "error": f"workers: {lines[-1] if lines else error!r}"[:500],
        }
    return record


def _worker(config: dict[str, Any]) -> str:
    return json.dumps(config["work"](config["job"]))
