"""What a worker does with one job: make what is missing, judge it, say what it came to."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version

import torch

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.storage.files import StoreLost
from dermsearch.work.cases import open_store
from dermsearch.work.fits import run_fit
from dermsearch.work.job import Job
from dermsearch.work.judging import judge_artifact
from dermsearch.work.record import Record
from dermsearch.work.shared_gpu import seat_of
from dermsearch.work.stages import make_segment, make_stage
from dermsearch.work.verdicts import lacked_memory, verdict

Worker = Callable[[Job], Record]
COMPUTE = ("torch", "torchvision", "timm", "numpy")


def run_job(job: Job) -> Record:
    """Train and judge one node of the tree. What is its own fault is a record; what is the machine's is raised.

    On a GPU that it shares, a job that lacked memory is tried once more when it has the GPU for itself.
    """
    began, notes = time.time(), list[str]()
    with seat_of(job) as seat:
        record = attempt(job)
        if seat is not None and lacked_memory(record):
            beside = " and ".join(seat.others()) or "others"
            seat.have_alone()
            record = attempt(job)
            again = "so it does alone" if lacked_memory(record) else "it went on alone; compute.gpus: 1 shares none"
            notes.append(f"{job}: lacked memory on a GPU that it shared with {beside}; {again}")
    about = {"process": f"{job.node}/{os.getpid()}", "began": began, "ended": time.time(), "libraries": libraries()}
    return record.model_copy(update={**about, "notes": (*noted(job), *notes)})


@cache
def libraries() -> str:
    """The versions of what numbers are made with here."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in COMPUTE)])


def attempt(job: Job) -> Record:
    """What becomes of the job here and now. Nothing of it stays on the GPU, not in an error's frames either."""
    try:
        return _run(job)
    except StoreLost as error:
        return Record(key=job.key, status="stopped", error=str(error))
    except Exception as error:
        reason = verdict(error, job.task or "judging")
        if reason is None:
            raise
        return Record(key=job.key, status="failed", error=reason)
    finally:
        empty_gpu()


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
