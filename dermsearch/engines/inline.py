"""The engine without Ray: the same driver, one stage after the other, in this process."""

from __future__ import annotations

import time

from dermsearch.errors import first_line
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.storage.leases import POLL
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.verdicts import given_up, of_machine
from dermsearch.work.worker import Worker, run_job


def run_inline(driver: Driver, worker: Worker = run_job) -> None:
    """Work until the driver says that it is finished."""
    while (job := driver.next_job()) != FINISHED:
        if job == WAIT:  # nothing runs here, so it is for another run that shares the store
            time.sleep(POLL)
            continue
        assert isinstance(job, Job)
        driver.done(attempt(worker, job))


def attempt(worker: Worker, job: Job) -> Record:
    """The job's record. There is no other process to try it in: a sick one ends the run, and no stage has failed."""
    try:
        return worker(job)
    except Exception as error:
        if not of_machine(error):
            return given_up(job.key, error)
        said = f"this process can do no more: {first_line(error)}; once it can, the same command continues"
        return Record(key=job.key, status="stopped", error=said)
