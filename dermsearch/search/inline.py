"""The engine without Ray: the same driver, one stage after the other, in this process."""

from __future__ import annotations

from dermsearch.search.driver import FINISHED, Driver
from dermsearch.search.work import Worker, do


def run_inline(driver: Driver, worker: Worker = do) -> None:
    """Work until the driver says that it is finished."""
    while (job := driver.next_job()) != FINISHED:
        assert isinstance(job, dict), "inline, nothing runs that one could wait for"
        driver.done(job["key"], worker(job))
