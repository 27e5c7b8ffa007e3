"""Stages and their segments: taken from the store, or trained and committed to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dermsearch import world
from dermsearch.errors import UserError, first_line
from dermsearch.evaluate.base import judge
from dermsearch.models.artifact import ENCODERS, Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import misfit, spread
from dermsearch.storage.stages import PartialStage, StageStore, Unusable
from dermsearch.training.learner import Recipe
from dermsearch.training.notice import Noticed
from dermsearch.training.stage import Trained, Watch, train_stage
from dermsearch.training.under_way import Unfit
from dermsearch.work.cases import cases_of, look_of
from dermsearch.work.features import look
from dermsearch.work.job import Job
from dermsearch.work.judging import key_of
from dermsearch.work.record import Record

LAST = ("loss", "embedding_std", "effective_rank")  # of a segment's last epoch, by which rates can be compared
Made = tuple[Record, Encoders, Artifact]  # what became of it, and what is to be judged


def make_stage(job: Job, store: StageStore, device: torch.device) -> Made:
    """A root or a stage to its end."""
    manifest = world.from_first(there(job, store))
    reused = manifest is not None
    if manifest is None:
        started = time.perf_counter()
        trained = train(job, store, device) if job.task else root(job, store)
        manifest = manifest_of(job, trained.history, device, started)
        if world.rank() == 0:
            store.commit(job.key, trained.parts, trained.history, manifest)
            for segment in job.segments:
                store.clear_partial(segment)
    record = Record.done(job.key, manifest, reused)
    if world.rank() != 0 or not job.judges:
        return record, Encoders.empty(*shape_of(job)), {}
    return record, *handed_on(job, store, job.key)


def there(job: Job, store: StageStore) -> dict[str, Any] | None:
    """The manifest of what the job makes, if it is in the store and can be loaded; the first process says so to all."""
    manifest = store.manifest(job.key) if world.rank() == 0 else None
    try:
        if manifest is not None and job.judges:
            handed_on(job, store, job.key)
    except Unusable:
        return None  # it is set aside, and made again
    return manifest


def make_segment(job: Job, store: StageStore, device: torch.device) -> Made:
    """The first epochs of a stage: judged, and left where the stage can go on from them.

    One that is there and lacks what is asked of it is made again, from its own state if that is still kept.
    """
    manifest = world.from_first(store.segment(job.key))
    kept = manifest is not None and (not job.keeps or ENCODERS in manifest.get("parts", {}))
    complete = kept and all(store.judgement(key_of(job, each), job.key) is not None for each in job.judges)
    if manifest is not None and world.from_first(complete):  # another run's
        return Record.done(job.key, manifest, True), Encoders.empty(*shape_of(job)), {}
    trained = train(job, store, device)
    about = made(job, trained.history, device) | {"last": {name: trained.history[-1][name] for name in LAST}}
    if world.rank() == 0:
        told = {"stage": job.stage, "until": job.until, "study": job.study}
        store.commit_segment(job.key, {**about, **told}, trained.parts if job.keeps else {})
        whole = store.manifest(job.stage) is not None  # trained by another study, which had no use for segments
        for key in (*job.segments, *([job.key] if whole else [])):  # nothing goes on from those now
            store.clear_partial(key)
    # Without what ties them to other processes.
    judged = Encoders.empty(*shape_of(job)).load(trained.parts[ENCODERS].state)
    return Record.done(job.key, about), judged, trained.parts


def start(job: Job, store: StageStore) -> tuple[Encoders, dict[str, Part]]:
    """What the job's stage begins with: the encoders, and all that was handed on."""
    if job.after == "root":  # the root's weights are there wherever they are needed: nobody waits for its judging
        return root_artifact(job, store)
    return handed_on(job, store, job.parent, "segments" if job.after == "segment" else "stages")


def handed_on(job: Job, store: StageStore, key: str, folder: str = "stages") -> tuple[Encoders, dict[str, Part]]:
    """What a stage or segment of the job's architecture handed on; what cannot be loaded is set aside, and told."""
    artifact, empty = store.artifact(key, folder), Encoders.empty(*shape_of(job))
    state = artifact[ENCODERS].state if ENCODERS in artifact else {}
    if wrong := misfit(state, empty.state_dict()):
        raise store.unusable(f"{folder}/{key}", wrong)
    return empty.load(state), artifact


def root_artifact(job: Job, store: StageStore) -> tuple[Encoders, dict[str, Part]]:
    """What curricula start with: random weights by seed, those of a file, or a finished stage's whole artifact."""
    if not job.weights:
        return Encoders.random(*shape_of(job), seed=job.seed), {}
    artifact = store.weights(job.weights, job.encoder)
    if artifact is None:
        raise UserError("encoder.weights: are no longer in the stage store; run the same command again")
    try:
        return spread(artifact[ENCODERS].state, Encoders.empty(*shape_of(job))), artifact
    except (RuntimeError, KeyError) as error:
        raise store.unusable(f"weights/{job.weights}-{job.encoder}", first_line(error)) from None


def root(job: Job, store: StageStore) -> Trained:
    """A root, as if it had been trained."""
    encoders, artifact = start(job, store)
    return Trained([], {**artifact, ENCODERS: encoders.part()})


def from_what_is_left(partial: PartialStage, train: Callable[[], Trained]) -> Trained:
    """Train from the state that is there. One that does not fit is set aside, and training begins anew."""
    while True:
        try:
            trained = train()
        except Unfit as error:
            if world.rank() == 0:
                partial.reject(str(error))
            continue
        except (Exception, Noticed):
            partial.settle()
            raise
        partial.settle()  # nothing is written behind a stage that has ended
        return trained


def train(job: Job, store: StageStore, device: torch.device) -> Trained:
    """Train what the job's parent handed on, to the end of the job's stage or segment."""
    cases, data, settings = cases_of(job, next(iter(job.sets))), job.main.data, job.settings
    told = settings["config"], settings["train"], job.seed, job.precision, look_of(data)
    recipe = Recipe(job.task, *told, tuple(settings.get("metadata", ())))
    rows = np.arange(len(cases)) if data.transductive else cases.split("train")
    partial = PartialStage(store, job.key, job.segments, every=job.save_every)

    def trained() -> Trained:
        encoders, artifact = start(job, store)
        return train_stage(
            recipe,
            encoders,
            cases,
            rows,
            partial,
            reporter(job, store, partial),
            device,
            heldout=cases.split("val"),
            watch=knn_watch(job, encoders, device),
            compiled=job.compile,
            until=job.until,
            artifact=artifact,
            pixels=job.pixels,
        )

    return from_what_is_left(partial, trained)


def reporter(job: Job, store: StageStore, partial: PartialStage) -> Any:
    """Lets the driver see how far a stage is, after every epoch."""
    seen: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        seen.append(row)
        if world.rank() == 0:
            store.write_progress(job.key, partial.behind + seen)

    return report


def manifest_of(job: Job, history: list[dict[str, Any]], device: torch.device, started: float) -> dict[str, Any]:
    """What is written beside a stage or fit: what it is, and how it came to be."""
    return {
        "task": job.task,
        "parent": job.parent,
        "settings": job.settings,
        "seed": job.seed,
        "study": job.study,  # that it was first made for; others may use it
        "weights": job.weights,
        "precision": job.precision,
        **made(job, history, device),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "took": time.perf_counter() - started,
    }


def made(job: Job, history: list[dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """How something came to be, as manifests and tables tell it."""
    return {
        "seconds": sum(row["seconds"] for row in history),
        "epochs": len(history),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "node": job.node,
        "workers": world.size(),
    }


def shape_of(job: Job) -> tuple[str, tuple[str, ...], str]:
    """What encoders are made by."""
    return job.encoder, job.main.data.modalities, job.branches


def knn_watch(job: Job, encoders: Encoders, device: torch.device) -> Watch | None:
    """kNN on the validation split every few epochs: shown in the history, seen by nothing that learns or searches."""
    if not job.knn_every:
        return None
    cases, data = cases_of(job, next(iter(job.sets))), job.main.data
    label = job.label if job.label in cases.classes else "mean"  # the objective may be of no label, as that of `pairs`

    def watch(epoch: int, backbones: Mapping[str, torch.nn.Module]) -> dict[str, float]:
        if epoch % job.knn_every:
            return {}
        shown = encoders.seen_through(backbones)
        try:
            looked = look(shown, cases, data, cases.split("train"), "val", device, job.precision)
            k = min(20, len(looked.features.train))
            rows = judge(looked.features, "knn", {"k": k}, job.seed).rows
        except ValueError:  # features that are not finite: not for a watcher to end the stage
            return {}
        return {"knn": next(r["value"] for r in rows if (r["label"], r["metric"]) == (label, "balanced_accuracy"))}

    return watch
