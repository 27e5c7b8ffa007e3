"""Ray Tune as the hands: one trial is one stage, proposed by the driver, run in a warm process."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from dermsearch.engines.ray_train import on_workers
from dermsearch.errors import UserError
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.work.verdicts import given_up
from dermsearch.work.worker import do

METRIC = "seconds"  # Tune wants one; the brain reads the scores from the store


class StageSearcher(Searcher):
    """Turns the driver's jobs into Tune trials and their ends into the driver's records."""

    def __init__(self, driver: Driver, storage: str) -> None:
        super().__init__(metric=METRIC, mode="min")
        self.driver, self.storage = driver, storage
        self.keys: dict[str, str] = {}  # Tune's trial id -> stage key
        self.records: dict[str, dict[str, Any]] = {}  # and the last record that came of it
        self.lock = threading.Lock()
        self.error: UserError | OSError | None = None  # that ends the run

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
            assert isinstance(job, dict)
            self.keys[trial_id] = job["key"]
            return {"job": json.dumps(job), "storage": self.storage}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the record; should it be of a process that had to end, another may bring a better one."""
        self.records[trial_id] = json.loads(result["record"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the record to the driver; a trial in error lost its process more often than it may."""
        key, record = self.keys.pop(trial_id, None), self.records.pop(trial_id, None)
        if key is None:
            return
        if not error and result:
            record = json.loads(result["record"])
        if record is None:
            lost = "its worker process died again and again; see Ray's logs"
            record = {"key": key, "status": "failed", "error": lost}
        with self.lock:
            try:
                self.driver.done(key, record)
            except (UserError, OSError) as error:  # from here Tune would pass on nothing but a traceback
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
    job = json.loads(config["job"])
    job["node"] = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"  # not the driver's
    try:
        record = on_workers(do, job, config["storage"]) if job["workers"] > 1 else do(job)
    except Exception as error:
        report(given_up(job["key"], error))
        raise
    report(record)


def report(record: dict[str, Any]) -> None:
    """Tell Tune what became of the stage."""
    tune.report({METRIC: record.get("seconds", 0.0), "record": json.dumps(record)})
