"""A driver whose worker trains nothing: it commits a tiny tensor and the score that the test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dermsearch.evaluate import PROTOCOLS
from dermsearch.search.propose.proposer import Brain
from dermsearch.search.space.space import Space
from dermsearch.search.tree.driver import Driver
from dermsearch.storage.keys import score_key
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study

TASKS = {"relative_location": {}, "moco_v2": {"queue": 64}, "odc": {"clusters": 4}}


def make_study(**changes: Any) -> Study:
    """The three-task study; `search__sampler="tpe"` changes one field."""
    raw: dict[str, Any] = {
        "name": "test",
        "data": {"cases": 80, "size": 32},
        "encoder": {"name": "resnet10t"},
        "curriculum": {"tasks": TASKS, "length": [1, 3]},
        "train": {"epochs": 2, "batch": 16, "precision": "fp32"},
        "downstream": {"linear": {}},
        "compute": {"engine": "inline"},
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            raw.setdefault(section, {})[field] = value
        else:
            raw[section] = value
    return Study.model_validate(raw)


class Bench:
    """A driver over a temporary store, and a log of the jobs that its fake worker did."""

    def __init__(self, folder: Path, score: Callable[[dict[str, Any]], float]) -> None:
        self.folder, self.score, self.jobs = folder, score, []  # type: ignore[var-annotated]
        self.fail: set[str] = set()
        self.breaks: Callable[[dict[str, Any]], bool] = lambda job: False

    def driver(self, study: Study) -> Driver:
        store, space = StageStore(str(self.folder / "store")), Space(study)
        self.brain = Brain(space, study.search, self.folder / "journal")
        return Driver(study, space, self.brain, store, "fingerprint", str(self.folder), "fp32")

    def work(self, driver: Driver) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def worker(job: dict[str, Any]) -> dict[str, Any]:
            self.jobs.append(job)
            if job["curriculum"] in self.fail or self.breaks(job):
                return {"key": job["key"], "status": "failed", "error": "on purpose", "traceback": "Traceback: here"}
            reused = driver.store.manifest(job["key"]) is not None  # and only to be judged
            epochs = job["settings"]["train"]["epochs"] if job["task"] else 0
            about: dict[str, Any] = {"seconds": 1.0, "epochs": epochs, "device": "cpu", "workers": 1}
            if job["until"]:
                about |= {"epochs": job["until"], "seconds": 0.5 * job["until"], "study": job["study"]}
                about["last"] = {"loss": 1 - self.score(job), "embedding_std": 1.0, "effective_rank": 9.0}
                driver.store.commit_segment(job["key"], about)
            else:
                driver.store.commit(job["key"], {"w": torch.ones(1)}, [], about)
            for name, config in job["protocols"].items():
                row = {"protocol": name, "split": "val", "label": "diagnosis", "class": ""}
                row |= {"metric": "balanced_accuracy", "value": self.score(job), "seed": job["seed"]}
                row |= {"ci_low": self.score(job) - 0.05, "ci_high": self.score(job) + 0.05}
                key = score_key(job["key"], name, PROTOCOLS.find(name).version, config, "all", "val", "fp32")
                driver.store.write_scores(key, [row])
            return {"key": job["key"], "status": "done", "reused": reused, **about}

        return worker


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Scores: one per cent per letter of the curriculum, so every one differs."""
    return Bench(tmp_path, lambda job: len(job["curriculum"]) / 100)
