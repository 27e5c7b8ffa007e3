"""Fits: a predictor is trained on labelled cases from what a stage hands on, kept, and its predictions are judged."""

from __future__ import annotations

import time
from typing import Any

import torch

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate.base import Judgement, compare
from dermsearch.fit.base import unfit
from dermsearch.models.artifact import PREDICTOR, Part
from dermsearch.pretext.base import Target
from dermsearch.storage.stages import PartialStage, StageStore, Unusable
from dermsearch.training.fits import predict_fit, train_fit
from dermsearch.training.stage import Trained
from dermsearch.work.cases import cases_of, look_of
from dermsearch.work.features import whole
from dermsearch.work.job import Job, Judge
from dermsearch.work.judging import attempt, key_of
from dermsearch.work.record import Judged, Record
from dermsearch.work.stages import from_what_is_left, manifest_of, reporter, start


def run_fit(job: Job, store: StageStore, device: torch.device) -> Record:
    """Train the job's predictor unless it is in the store, and judge it."""
    (judge,) = job.judges
    key, judged = key_of(job, judge), []
    manifest, cases = world.from_first(there(job, store, key)), cases_of(job, judge.data)
    reused = manifest is not None
    if manifest is None:
        manifest = train(job, store, device)
    if world.rank() == 0:
        if store.judgement(key, job.key) is not None:
            judged = [Judged(key=key, reused=True)]
        else:
            began, part = time.perf_counter(), predictor(job, store)
            judged = [attempt(store, key, job.key, judge, lambda: judgement(job, part, cases, device), began)]
    seconds = sum(each.seconds for each in judged)
    update = {"judged": tuple(judged), "judge_seconds": seconds}
    return Record.done(job.key, manifest, reused).model_copy(update=update)


def there(job: Job, store: StageStore, key: str) -> dict[str, Any] | None:
    """What the predictor's manifest tells, if it is in the store and, where it is still to be judged, can be loaded."""
    manifest = store.manifest(job.key) if world.rank() == 0 else None
    try:
        if manifest is not None and store.judgement(key, job.key) is None:
            predictor(job, store)
    except Unusable:
        return None  # it is set aside, and trained again
    return manifest


def train(job: Job, store: StageStore, device: torch.device) -> dict[str, Any]:
    """Train and commit it; returns what its manifest tells."""
    (judge,) = job.judges
    started, data, cases = time.perf_counter(), job.sets[judge.taught].data, cases_of(job, judge.taught)
    rows = whole(cases, data.modalities, cases.split(judge.part, draw=(job.seed, judge.draw)))
    if not len(rows):
        raise UserError(f"data.modalities: no training case has images of {' and '.join(data.modalities)}")
    partial = PartialStage(store, job.key, every=job.save_every)

    def fitted() -> Trained:
        encoders, artifact = start(job, store)
        return train_fit(
            job.task,
            judge.config,
            judge.seed(job.seed),
            artifact,
            encoders,
            cases,
            rows,
            partial,
            reporter(job, store, partial),
            device,
            job.precision,
            look_of(data),
            job.compile,
            target_of(job, judge),
            job.pixels,
        )

    trained = from_what_is_left(partial, fitted)
    manifest = {"kind": "fit", **manifest_of(job, trained.history, device, started)}
    if world.rank() == 0:
        store.commit(job.key, trained.parts, trained.history, manifest)
    return manifest


def target_of(job: Job, judge: Judge) -> Target | None:
    """The cases whose images an adaptation looks at: the training cases of the data set that it is judged on."""
    if not judge.source:
        return None
    cases, data = cases_of(job, judge.data), job.sets[judge.data].data
    return Target(cases, whole(cases, data.modalities, cases.split("train")), look_of(data))


def predictor(job: Job, store: StageStore) -> Part:
    """The fitted network that the job's stage keeps."""
    artifact = store.artifact(job.key)
    wrong = unfit(artifact[PREDICTOR], job.task) if PREDICTOR in artifact else "it holds no predictor"
    if wrong:
        raise store.unusable(f"stages/{job.key}", wrong)
    return artifact[PREDICTOR]


def judgement(job: Job, part: Part, cases: CaseStore, device: torch.device) -> Judgement:
    """What its predictions of the held-out cases are worth."""
    (judge,) = job.judges
    data = job.sets[judge.data].data
    rows = whole(cases, data.modalities, cases.split(judge.split))
    if not len(rows):
        raise UserError(f"data.modalities: no {judge.split} case has images of {' and '.join(data.modalities)}")
    predicted = predict_fit(part, cases, rows, look_of(data), device, job.precision, job.pixels)
    truth = {name: cases.label(name)[rows] for name in cases.classes}
    names = cases.strings("case")[rows]
    named, shown = cases.domain.named, bool(judge.source)
    return compare(truth, cases.classes, cases.groups()[rows], predicted, judge.split, named, names, shown)
