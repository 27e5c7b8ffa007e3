"""Ray Tune as the hands: one trial is one stage, proposed by the driver, run in a warm process."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from dermsearch.errors import UserError
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver

METRIC = "seconds"  # Tune wants one; the brain reads the scores from the store


class StageSearcher(Searcher):
    """Turns the driver's jobs into Tune trials and their ends into the driver's records."""

    def __init__(self, driver: Driver, storage: str) -> None:
        super().__init__(metric=METRIC, mode="min")
        self.driver, self.storage = driver, storage
        self.keys: dict[str, str] = {}  # Tune's trial id -> stage key
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

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the record to the driver; a trial without one lost its process more often than it may."""
        key = self.keys.pop(trial_id, None)
        if key is None:
            return
        if error or not result or "record" not in result:
            lost = "its worker process died again and again; see Ray's logs"
            record = {"key": key, "status": "failed", "error": lost}
        else:
            record = json.loads(result["record"])
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
    """A Tune trial: one stage, one report."""
    from dermsearch.work.worker import do

    job = json.loads(config["job"])
    job["node"] = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"  # not the driver's
    if job["workers"] > 1:
        from dermsearch.engines.ray_train import on_workers

        record = on_workers(do, job, config["storage"])
    else:
        record = do(job)
    tune.report({METRIC: record.get("seconds", 0.0), "record": json.dumps(record)})
