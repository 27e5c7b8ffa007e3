"""One stage on several workers, under Ray Train."""

from __future__ import annotations

import os
import time
from typing import Any

from dermsearch.engines.ray_notice import listening, stopped
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.verdicts import given_up
from dermsearch.work.worker import Worker

# Seconds that a group may take until all its processes are there. Ray Train's 60 are less than a node takes to be found
# lost and another to come, and what does not start in time counts as an attempt.
STARTING = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600"}


class Leaving(Exception):
    """A worker's record that is no success. Raised, Ray Train ends the others at once, in whatever collective."""


def on_workers(work: Worker, job: Job, storage: str) -> Record:
    """Run `work(job)` on `job.workers` processes that form one group; the first one's record comes back.

    All leave together. What one says of the job's settings is the record of all; where one dies or meets what is no
    verdict, new ones try again, and `work` finds the state of the last epoch in the stage store. `storage` is a place
    that all nodes reach, for Ray Train's own bookkeeping; nothing in it is kept.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    for name, value in STARTING.items():
        os.environ.setdefault(name, value)
    record = Record(key=job.key, status="failed")
    for _ in range(1 + job.retries):
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"work": work, "job": job.model_dump_json(), "storage": storage},
            torch_config=TorchConfig(backend="nccl" if job.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=job.workers,
                use_gpu=bool(job.gpus),
                resources_per_worker={"CPU": job.threads, **({"GPU": job.gpus} if job.gpus else {})},
            ),
            run_config=RunConfig(
                name=f"{job.key}-{time.time_ns()}",  # a name that comes again would resume the old run
                storage_path=storage,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            return Record.model_validate_json(trainer.fit().return_value)
        except TrainingFailedError as error:
            failures = sorted(getattr(error, "worker_failures", {}).items())
            for _, failure in failures:
                if isinstance(failure, Leaving):
                    return Record.model_validate_json(str(failure))
            # Where a process died, what the others say is that they miss it.
            causes = sorted((failure for _, failure in failures), key=lambda failure: not isinstance(failure, RayError))
            record = given_up(job.key, causes[0] if causes else error).model_copy(update={"traceback": str(error)})
    return record


def _worker(config: dict[str, Any]) -> str:
    job = Job.model_validate_json(config["job"])
    try:
        with listening(config["storage"]):
            record: Record = config["work"](job)
    except KeyboardInterrupt:
        record = stopped(job)
    if record.status != "done":
        raise Leaving(record.model_dump_json())
    return record.model_dump_json()
