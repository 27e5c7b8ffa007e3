"""A driver whose worker trains nothing: it commits a tiny tensor and the score that the test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dermsearch.models.artifact import Part
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.roots import Start
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.work.job import Cases, Job
from dermsearch.work.record import Judged, Record

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
        "compute": {"engine": "inline", "save_every": 0},
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

    def __init__(self, folder: Path, score: Callable[[Job], float]) -> None:
        self.folder, self.score, self.jobs = folder, score, list[Job]()
        self.fail: set[str] = set()
        self.breaks: Callable[[Job], bool] = lambda job: False
        self.misjudges: Callable[[Job], bool] = lambda job: False

    def driver(self, study: Study, **more: Any) -> Driver:
        store, space = StageStore(str(self.folder / "store")), space_of(study)
        self.proposer = Proposer(space, study.search, self.folder / "journal")
        sets = {name: Cases(data=data, fingerprint=f"fingerprint of {name}") for name, data in study.sets.items()}
        begin = more.pop("starts", [Start(root.name, root.encoder) for root in study.encoder.roots])
        return Driver(study, space, self.proposer, store, sets, begin, str(self.folder), "fp32", **more)

    def work(self, driver: Driver) -> Callable[[Job], Record]:
        def worker(job: Job) -> Record:
            self.jobs.append(job)
            if job.curriculum in self.fail or self.breaks(job):
                return Record(key=job.key, status="failed", error="on purpose", traceback="Traceback: here")
            reused = driver.store.manifest(job.key) is not None  # and only to be judged
            epochs = job.until or (job.settings["train"]["epochs"] if job.task else 0)
            about: dict[str, Any] = {"seconds": 1.0, "epochs": epochs, "device": "cpu", "workers": 1}
            part = Part({}, {"w": torch.ones(1)})
            if job.until:
                about |= {"seconds": 0.5 * job.until}
                about["last"] = {"loss": 1 - self.score(job), "embedding_std": 1.0, "effective_rank": 9.0}
                told = about | {"study": job.study}
                driver.store.commit_segment(job.key, told, {"encoders": part} if job.keeps else {})
            else:
                kind = "predictor" if job.kind == "fit" else "encoders"
                driver.store.commit(job.key, {kind: part}, [], about)
            judged = []
            for judge in job.judges:
                key = judge.key(job.key, job.sets[judge.data], job.precision, job.seed)
                if self.misjudges(job):
                    judged.append(Judged(key=key, status="failed", reason="misjudged on purpose"))
                    continue
                row = {"split": "val", "label": "diagnosis", "class": "", "metric": "balanced_accuracy"}
                row |= {"value": self.score(job), "ci_low": self.score(job) - 0.05, "ci_high": self.score(job) + 0.05}
                told = {"protocol": judge.protocol, "rows": [row], "confusions": [], "seconds": 0.0}
                driver.store.write_judgement(key, told, job.key)
                judged.append(Judged(key=key))
            return Record(key=job.key, status="done", reused=reused, judged=tuple(judged), **about)

        return worker


def scores_of(proposer: Proposer) -> dict[Proposal, float]:
    """The score of every proposal that has one, asked for or come out on the way."""
    known = proposer.known.values.items()
    return {proposal: value for proposal, value in known if len(proposal.curriculum) >= proposer.space.length[0]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Scores: one per cent per letter of the curriculum, so every one differs."""
    return Bench(tmp_path, lambda job: len(job.curriculum) / 100)
