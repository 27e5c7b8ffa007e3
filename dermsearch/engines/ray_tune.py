"""Ray Tune as the hands: one trial is one stage, proposed by the driver, run in a warm process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune import Stopper
from ray.tune.search import Searcher

from dermsearch.engines.ray_left import release_until
from dermsearch.engines.ray_notice import give, listening, stopped
from dermsearch.engines.ray_train import on_workers
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.verdicts import given_up
from dermsearch.work.worker import run_job

METRIC = "seconds"  # Tune wants one; the brain reads the scores from the store
LOOK, LEAVING = 0.2, 10.0  # seconds between two looks at whether Ray is there, and until Tune is no longer waited for
SAVING = 15.0  # seconds that trials have to leave: schedulers give thirty in all, of which Tune and Ray take some four


def run_trials(driver: Driver, storage: str, share: dict[str, float], at_once: int, check: Callable[[], None]) -> None:
    """Run the driver's jobs until it is finished. What `check` raises, or a signal, ends it, whatever Ray waits for."""
    compute, searcher, raised = driver.study.compute, StageSearcher(driver, storage), list[BaseException]()
    tuner = tune.Tuner(
        tune.with_resources(run_trial, share),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=at_once,
            reuse_actors=True,  # a warm process takes a stage in a tenth of a second, a new one in many
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=storage,
            stop=Ended(searcher),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=compute.retries),
        ),
    )

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:
            raised.append(error)
        finally:
            tuned.set()

    tuned, ended = threading.Event(), threading.Event()  # a thread whose join a signal ends is taken for a dead one
    threading.Thread(target=fit, daemon=True).start()
    threading.Thread(target=release_until, args=(ended,), daemon=True).start()
    try:
        while not tuned.wait(LOOK):
            check()
    except KeyboardInterrupt:
        give(storage)
        searcher.close()
        until = time.monotonic() + SAVING
        while searcher.keys and not tuned.wait(LOOK) and time.monotonic() < until:
            pass  # once Tune is to stop, it ends processes amid what they do
        searcher.end()
        tuned.wait(LEAVING)
        raise
    finally:
        ended.set()
        searcher.end()
    if searcher.error is not None:
        raise searcher.error
    if raised:
        check()  # what Ray says of its own death is no help
        raise raised[0]


def leave_keys_alone() -> None:
    """Tune hands the keys of S3 to its processes by way of Ray's logs; those of a Ray of one's own inherit them."""
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    ENV_VARS_TO_PROPAGATE.difference_update({name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")})


class StageSearcher(Searcher):
    """Turns the driver's jobs into Tune trials and their ends into the driver's records."""

    def __init__(self, driver: Driver, storage: str) -> None:
        super().__init__(metric=METRIC, mode="min")
        self.driver, self.storage = driver, storage
        self.keys: dict[str, str] = {}  # Tune's trial id -> stage key
        self.records: dict[str, Record] = {}  # and the last record that came of it
        self.lock = threading.Lock()
        self.error: Exception | None = None  # that ends the run
        self.closed = False  # the driver is no longer to be asked
        self.ended = False  # Tune is to stop

    def close(self) -> None:
        """Hand out nothing more, and tell the driver of nothing more."""
        got = not self.closed and self.lock.acquire(timeout=LEAVING)  # somebody may wait for the store
        self.closed = True
        if got:
            self.lock.release()

    def end(self) -> None:
        """Have Tune stop."""
        self.close()
        self.ended = True

    def suggest(self, trial_id: str) -> Any:
        """A job; None while stages that others need are still running; FINISHED at the end."""
        with self.lock:
            if self.error is not None:
                raise self.error
            if self.closed:
                return None
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
            lost = "its worker process died again and again; the machine may lack memory"
            record = Record(key=key, status="failed", error=lost)
        with self.lock:
            if self.closed:
                return
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


class Ended(Stopper):
    """Stops Tune when its searcher was told to end."""

    def __init__(self, searcher: StageSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """All are, at the end."""
        return self.searcher.ended

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restore that is never asked for."""
        return {}


def run_trial(config: dict[str, Any]) -> None:
    """A Tune trial: one stage, one report. What is raised ends this process, and Tune tries the trial in another."""
    node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"  # not the driver's
    job = Job.model_validate_json(config["job"]).model_copy(update={"node": node})
    try:
        with listening(config["storage"]):
            record = on_workers(run_job, job, config["storage"]) if job.workers > 1 else run_job(job)
    except KeyboardInterrupt:
        record = stopped(job)
    except Exception as error:
        report(given_up(job.key, error))
        raise
    report(record)


def report(record: Record) -> None:
    """Tell Tune what became of the stage."""
    tune.report({METRIC: record.seconds or 0.0, "record": record.model_dump_json()})
