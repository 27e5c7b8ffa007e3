"""The engine without Ray: the same driver, one stage after the other, in this process."""

from __future__ import annotations

import time

from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.storage.leases import POLL
from dermsearch.work.worker import Worker, do


def run_inline(driver: Driver, worker: Worker = do) -> None:
    """Work until the driver says that it is finished."""
    while (job := driver.next_job()) != FINISHED:
        if job == WAIT:  # nothing runs here, so it is for another run that shares the store
            time.sleep(POLL)
            continue
        assert isinstance(job, dict)
        driver.done(job["key"], worker(job))
