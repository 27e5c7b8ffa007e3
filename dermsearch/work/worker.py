"""What a worker does with one job: make what is missing, judge it, say what it came to."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.storage.files import StoreLost
from dermsearch.work.cases import open_store
from dermsearch.work.fits import run_fit
from dermsearch.work.job import Job
from dermsearch.work.judging import judge_artifact
from dermsearch.work.record import Record
from dermsearch.work.stages import make_segment, make_stage
from dermsearch.work.verdicts import verdict

Worker = Callable[[Job], Record]


def run_job(job: Job) -> Record:
    """Train and judge one node of the tree. What is its own fault is a record; what is the machine's is raised."""
    began = time.time()
    try:
        record = _run(job)
    except StoreLost as error:
        record = Record(key=job.key, status="stopped", error=str(error))
    except Exception as error:
        reason = verdict(error, job.task or "judging")
        if reason is None:
            raise
        record = Record(key=job.key, status="failed", error=reason)
    finally:
        empty_gpu()
    about = {"process": f"{job.node}/{os.getpid()}", "began": began, "ended": time.time(), "notes": noted(job)}
    return record.model_copy(update=about)


def _run(job: Job) -> Record:
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if job.gpus and torch.cuda.is_available() else "cpu")
    store = open_store(job.store)
    if job.kind == "fit":
        return run_fit(job, store, device)
    record, encoders, artifact = (make_segment if job.until else make_stage)(job, store, device)
    if world.rank() == 0 and job.judges:
        judged = judge_artifact(job, store, encoders, artifact, device)
        record = record.model_copy(update={"judged": judged, "judge_seconds": sum(j.seconds for j in judged)})
    return record


def noted(job: Job) -> tuple[str, ...]:
    """What this process set aside on the way, each told once."""
    with suppress(UserError):  # which the record tells of
        store = open_store(job.store)
        notes, store.notes = store.notes, []
        return tuple(notes)
    return ()


def empty_gpu() -> None:
    """Leave nothing of a job on the GPU that the next one, or another process, could need."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
