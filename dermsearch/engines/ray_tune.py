"""Ray Tune as the hands: one trial is one stage, proposed by the driver, run in a warm process."""

from __future__ import annotations

import socket
import threading
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from dermsearch.engines.ray_train import on_workers
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.verdicts import given_up
from dermsearch.work.worker import run_job

METRIC = "seconds"  # Tune wants one; the brain reads the scores from the store


class StageSearcher(Searcher):
    """Turns the driver's jobs into Tune trials and their ends into the driver's records."""

    def __init__(self, driver: Driver, storage: str) -> None:
        super().__init__(metric=METRIC, mode="min")
        self.driver, self.storage = driver, storage
        self.keys: dict[str, str] = {}  # Tune's trial id -> stage key
        self.records: dict[str, Record] = {}  # and the last record that came of it
        self.lock = threading.Lock()
        self.error: Exception | None = None  # that ends the run

    def suggest(self, trial_id: str) -> Any:
        """A job; None while stages that others need are still running; FINISHED at the end."""
        with self.lock:
            if self.error is not None:
                raise self.error
            job = self.driver.next_job()
            if job == WAIT:
                return None
            if job == FINISHED:
                return Searcher.FINISHED
            assert isinstance(job, Job)
            self.keys[trial_id] = job.key
            return {"job": job.model_dump_json(), "storage": self.storage}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the record; should it be of a process that had to end, another may bring a better one."""
        self.records[trial_id] = Record.model_validate_json(result["record"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the record to the driver; a trial in error lost its process more often than it may."""
        key, record = self.keys.pop(trial_id, None), self.records.pop(trial_id, None)
        if key is None:
            return
        if not error and result:
            record = Record.model_validate_json(result["record"])
        if record is None:
            lost = "its worker process died again and again; see Ray's logs"
            record = Record(key=key, status="failed", error=lost)
        with self.lock:
            try:
                self.driver.done(record)
            except Exception as error:  # Tune would take it for the trial's, and try that again
                self.error = error

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The driver holds back by itself; Tune's own limit does the rest."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that is never asked for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a study is resumed from the stage store, not from Tune."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def run_trial(config: dict[str, Any]) -> None:
    """A Tune trial: one stage, one report. What is raised ends this process, and Tune tries the trial in another."""
    node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"  # not the driver's
    job = Job.model_validate_json(config["job"]).model_copy(update={"node": node})
    try:
        record = on_workers(run_job, job, config["storage"]) if job.workers > 1 else run_job(job)
    except Exception as error:
        report(given_up(job.key, error))
        raise
    report(record)


def report(record: Record) -> None:
    """Tell Tune what became of the stage."""
    tune.report({METRIC: record.seconds or 0.0, "record": record.model_dump_json()})
