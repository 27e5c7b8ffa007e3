"""Every judgement of an artifact that the store lacks. One that fails is a record of its own and hides no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch

from dermsearch import world
from dermsearch.evaluate.base import Judgement, judge
from dermsearch.models.artifact import Artifact
from dermsearch.models.encoders import Encoders
from dermsearch.storage.files import StoreLost
from dermsearch.storage.shapes import judged
from dermsearch.storage.stages import StageStore
from dermsearch.work.cases import cases_of
from dermsearch.work.features import Looked, look
from dermsearch.work.job import Job, Judge
from dermsearch.work.record import Judged
from dermsearch.work.verdicts import given_up, of_machine, verdict


@world.alone()  # the first process judges; what waits for all would wait for ever
def judge_artifact(
    job: Job, store: StageStore, encoders: Encoders, artifact: Artifact, device: torch.device
) -> tuple[Judged, ...]:
    """Let all judges of the job judge what it hands on, data set by data set: its images are looked at once."""
    encoders, results = encoders.to(device), dict[str, Judged]()
    for name in job.sets:
        judges = [each for each in job.judges if each.data == name]
        missing = [each for each in judges if store.judgement(key_of(job, each), job.key) is None]
        results |= {key_of(job, each): Judged(key=key_of(job, each), reused=True) for each in judges}
        if not missing:
            continue
        began, looked = time.perf_counter(), None
        try:
            looked = look_for(missing, job, encoders, device)
        except Exception as error:
            results |= {key_of(job, each): failed(key_of(job, each), error, str(each)) for each in missing}
            continue
        for each in missing:
            rows = cases_of(job, name).split(each.part, draw=(job.seed, each.draw))

            def judgement(each: Judge = each, looked: Looked = looked, rows: np.ndarray = rows) -> Judgement:
                drawn = looked.drawn(rows)
                return judge(drawn.features, each.protocol, each.config, each.seed(job.seed), artifact, drawn.images)

            results[key_of(job, each)] = attempt(store, key_of(job, each), job.key, each, judgement, began)
            began = time.perf_counter()  # the first one's seconds hold what looking took
    return tuple(results[key_of(job, each)] for each in job.judges)


def key_of(job: Job, each: Judge) -> str:
    """Of the judgement of what a job makes."""
    return each.key(job.key, job.sets[each.data], job.precision, job.seed)


def look_for(judges: Iterable[Judge], job: Job, encoders: Encoders, device: torch.device) -> Looked:
    """Features of all cases that any of the judges, who share data set and split, learns from."""
    first, *_ = judges = list(judges)
    cases, data = cases_of(job, first.data), job.sets[first.data].data
    rows = [cases.split(each.part, draw=(job.seed, each.draw)) for each in judges]
    return look(encoders, cases, data, np.unique(np.concatenate(rows)), first.split, device, job.precision)


def attempt(
    store: StageStore, key: str, of: str, judge: Judge, judgement: Callable[[], Judgement], began: float
) -> Judged:
    """Make a judgement and keep it, or say why it failed."""
    try:
        made = judgement()
        seconds = time.perf_counter() - began
        told = {"protocol": judge.protocol, "rows": made.rows, "confusions": made.confusions, "seconds": seconds}
        if not judged(told):  # nobody could read it, so that it would be made again for ever
            raise ValueError(f"{judge.protocol} gives no rows, or rows with what is no finite number")
    except StoreLost:
        raise
    except Exception as error:
        return failed(key, error, str(judge))
    store.write_judgement(key, told, of, made.predictions)
    return Judged(key=key, seconds=seconds)


def failed(key: str, error: Exception, name: str) -> Judged:
    """A judgement's failure: through its settings, or a bug in the protocol. The machine's is raised."""
    if of_machine(error):
        raise error
    reason = verdict(error, name)
    if reason is not None:
        return Judged(key=key, status="failed", reason=reason)
    bug = given_up(key, error)
    return Judged(key=key, status="failed", reason=bug.error, traceback=bug.traceback)
