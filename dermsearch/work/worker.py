"""What a worker does with one stage: train it unless it is in the store, judge its encoders, say what it came to.

A job is plain JSON, so that it travels through Ray as it is and can be read in a log.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch import world
from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.views.augment import plain
from dermsearch.errors import UserError
from dermsearch.evaluate import PROTOCOLS, judge
from dermsearch.evaluate.base import Features, Images
from dermsearch.fit.base import is_fit
from dermsearch.models.artifact import ENCODERS, PREDICTOR, Artifact
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import spread
from dermsearch.storage.keys import score_key
from dermsearch.storage.place import StoreLost
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.study.config import Data, Encoder
from dermsearch.training.fits import predict_fit, train_fit
from dermsearch.training.precision import autocast
from dermsearch.training.stage import Recipe, StageFailed, Watch, train_stage

Job = dict[str, Any]
Record = dict[str, Any]
LAST = ("loss", "embedding_std", "effective_rank")  # of a segment's last epoch, by which rates can be compared


def do(job: Job) -> Record:
    """Train and judge one node of the tree. A failure through the job's own settings is a record, not an exception."""
    began = time.time()
    try:
        record = _do(job)
    except StoreLost as error:
        record = {"status": "stopped", "error": str(error)}
    except (StageFailed, UserError) as error:
        record = {"status": "failed", "error": str(error)}
    except torch.OutOfMemoryError as error:
        record = {
            "status": "failed",
            "error": f"{job['task'] or 'judging'}: out of memory: {str(error).splitlines()[0]}",
        }
    except Exception as error:  # a bug, perhaps in one task only: the rest of the study goes on without it
        last = traceback.format_exc()
        record = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:500], "traceback": last}
    process = f"{job['node']}/{os.getpid()}"
    return {"key": job["key"], **record, "process": process, "began": began, "ended": time.time()}


def _do(job: Job) -> Record:
    torch.set_num_threads(job["threads"])
    device = torch.device("cuda" if job["gpus"] and torch.cuda.is_available() else "cpu")
    store, cases = open_store(job["store"]), open_case_store(json.dumps(job["data"]), job["cache"])
    if cases.fingerprint != job["fingerprint"]:
        raise UserError(f"{cases.folder}: was made anew while the study ran; run the same command again")
    encoder, data = Encoder(**job["encoder"]), Data(**job["data"])
    shape = (encoder.name, data.modalities, encoder.branches)
    record: Record = {"status": "done", "reused": True}
    if job["until"]:
        return record | _segment(job, store, cases, shape, device)
    manifest = store.manifest(job["key"])
    if manifest is None:
        manifest = _stage(job, store, cases, shape, device)
        record["reused"] = False
    record |= {k: manifest.get(k) for k in ("seconds", "epochs", "device", "node", "workers")}
    if world.rank() == 0:
        encoders = Encoders.empty(*shape).load(store.encoders(job["key"])).to(device)
        record["judge_seconds"] = _judge(job, store, cases, encoders, store.parts(job["key"]))
    return record


def _judge(job: Job, store: StageStore, cases: CaseStore, encoders: Encoders, artifact: Artifact) -> float:
    """Let all protocols of the job judge its encoders that have not done so; returns the seconds that it took."""
    judging, data, device = time.perf_counter(), Data(**job["data"]), next(encoders.parameters()).device
    features = extract(encoders, cases, data, device, job["precision"])
    rows, cast = judged(encoders, cases, data), autocast(device, job["precision"])
    images = Images(encoders, cases, rows["train"], rows["val"], look_of(data), device, cast)
    for name, config in job["protocols"].items():
        key = judgement(job, name, config)
        if store.scores(key) is None:
            settings, predicted = PROTOCOLS[name].Config(**config), None
            if is_fit(PROTOCOLS[name]):
                look = look_of(data)
                where = encoders, cases, rows["train"], Unkept(), lambda row: None, device, job["precision"], look
                with world.alone():
                    part = train_fit(name, settings, job["seed"], artifact, *where).parts[PREDICTOR]
                predicted = predict_fit(part, cases, rows["val"], look, device, job["precision"])
            scores = judge(features, name, settings, job["seed"], artifact, images, predicted)
            store.write_scores(key, scores, job["key"])
    return time.perf_counter() - judging


class Unkept:
    """A fit that nobody can go on with."""

    def load(self) -> None:
        """Nothing is kept."""

    def save(self, state: dict[str, Any]) -> None:
        """Nor is this."""


def _segment(
    job: Job, store: StageStore, cases: CaseStore, shape: tuple[str, tuple[str, ...], str], device: torch.device
) -> Record:
    """The first epochs of a stage: judged, and left where the stage can go on from them.

    One that is there and lacks a judgement is made again, from its own state if that is still kept.
    """
    manifest, judgements = store.segment(job["key"]), [judgement(job, *p) for p in job["protocols"].items()]
    if manifest is not None and all(store.scores(key) is not None for key in judgements):
        return {k: manifest[k] for k in ("seconds", "epochs", "device", "node", "workers", "last")}  # another run's
    encoders = start(job, store, shape)
    history, parts = _train(job, store, cases, encoders, device)
    about = {"seconds": sum(row["seconds"] for row in history), "epochs": len(history), "device": describe(device)}
    about |= {"node": job["node"], "workers": world.size()}
    about["last"] = {name: history[-1][name] for name in LAST}
    judging = 0.0
    if world.rank() == 0:
        if job["protocols"]:
            judging = _judge(job, store, cases, encoders, parts)
        store.commit_segment(job["key"], {**about, "stage": job["stage"], "until": job["until"], "study": job["study"]})
        whole = store.manifest(job["stage"]) is not None  # trained by another study, which had no use for segments
        for key in (*job["segments"], *([job["key"]] if whole else [])):  # nothing goes on from those now
            store.clear_partial(key)
    return {**about, "reused": False, "judge_seconds": judging}


def start(job: Job, store: StageStore, shape: tuple[str, tuple[str, ...], str]) -> Encoders:
    """The encoders that the job's stage begins with."""
    if job["depth"] < 2:  # the root's weights are there wherever they are needed: nobody waits for its judging
        return root_encoders(job, store, shape)
    return Encoders.empty(*shape).load(store.encoders(job["parent"]))


def _train(
    job: Job, store: StageStore, cases: CaseStore, encoders: Encoders, device: torch.device
) -> tuple[list[dict[str, Any]], Artifact]:
    """Train them, to the end of the job's stage or segment; returns the history, and what is handed on beside them."""
    settings = job["settings"]
    look = look_of(Data(**job["data"]))
    recipe = Recipe(job["task"], settings["config"], settings["train"], job["seed"], job["precision"], look)
    rows = np.arange(len(cases)) if job["data"]["transductive"] else cases.split("train")
    partial, watch = PartialStage(store, job["key"], job["segments"]), knn_watch(job, encoders, cases, device)
    seen: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        seen.append(row)
        if world.rank() == 0:
            store.write_progress(job["key"], partial.behind + seen)

    artifact = store.parts(job["parent"]) if job["depth"] > 1 else {}
    ways = cases.split("val"), watch, job["compile"], job["until"]
    trained = train_stage(recipe, encoders, cases, rows, partial, report, device, *ways, artifact=artifact)
    return trained.history, {kind: part for kind, part in trained.parts.items() if kind != ENCODERS}


def _stage(
    job: Job, store: StageStore, cases: CaseStore, shape: tuple[str, tuple[str, ...], str], device: torch.device
) -> Record:
    """Make the node's encoders and commit them; returns the manifest."""
    started = time.perf_counter()
    encoders = start(job, store, shape)
    history, parts = _train(job, store, cases, encoders, device) if job["task"] else ([], {})
    manifest = {
        "task": job["task"],
        "parent": job["parent"],
        "settings": job["settings"],
        "seed": job["seed"],
        "study": job["study"],  # that it was first made for; others may use it
        "weights": job["weights"],
        "precision": job["precision"],
        "seconds": sum(row["seconds"] for row in history),
        "epochs": len(history),
        "device": describe(device),
        "node": job["node"],
        "workers": world.size(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "took": time.perf_counter() - started,
    }
    if world.rank() == 0:
        store.commit(job["key"], encoders.state_dict(), history, manifest, parts)
        for segment in job["segments"]:
            store.clear_partial(segment)
    return manifest


def root_encoders(job: Job, store: StageStore, shape: tuple[str, tuple[str, ...], str]) -> Encoders:
    """What curricula start with: random weights by seed, or those of the study's file."""
    if not job["weights"]:
        return Encoders.random(*shape, seed=job["seed"])
    weights = store.weights(job["weights"], shape[0])
    if weights is None:
        raise UserError("encoder.weights: are no longer in the stage store; run the same command again")
    return spread(weights, Encoders.empty(*shape))


def knn_watch(job: Job, encoders: Encoders, cases: CaseStore, device: torch.device) -> Watch | None:
    """kNN on the validation split every few epochs: shown in the history, seen by nothing that learns or searches."""
    every, label = job["knn_every"], job["label"]
    if not every:
        return None
    knn, data = PROTOCOLS["knn"], Data(**job["data"])
    label = label if label in cases.classes else "mean"  # the objective may be of no label, as that of `pairs`

    def watch(epoch: int, backbones: Mapping[str, torch.nn.Module]) -> dict[str, float]:
        if epoch % every:
            return {}
        shown = encoders.seen_through(backbones)
        try:
            rows = judge(extract(shown, cases, data, device, job["precision"]), "knn", knn.Config(), job["seed"])
        except ValueError:  # features that are not finite: not for a watcher to end the stage
            return {}
        return {"knn": next(r["value"] for r in rows if (r["label"], r["metric"]) == (label, "balanced_accuracy"))}

    return watch


def judgement(job: Job, name: str, config: dict[str, Any]) -> str:
    """The key of what a protocol says of the job's stage."""
    labelled = job["data"]["labelled"]
    return score_key(job["key"], name, PROTOCOLS[name].version, config, labelled, "val", job["precision"])


@torch.no_grad()
def extract(
    encoders: Encoders, cases: CaseStore, data: Data, device: torch.device, precision: str, batch: int = 256
) -> Features:
    """Features of training and validation cases, once for all protocols; two modalities side by side."""
    encoders.eval().to(memory_format=torch.channels_last)
    cast, look = autocast(device, precision), look_of(data)
    rows = judged(encoders, cases, data)
    found: dict[str, np.ndarray] = {}
    for split, chosen in rows.items():
        columns = []
        for modality in encoders.modalities:
            parts = []
            for start in range(0, len(chosen), batch):
                x = pictures(cases, modality, chosen[start : start + batch], look, device)
                with cast():
                    parts.append(encoders(plain(x, look.size), modality).float().cpu())
            columns.append(torch.cat(parts))
        found[split] = torch.cat(columns, 1).numpy()
    labels, groups = {name: cases.label(name) for name in cases.classes}, cases.groups()
    starts = range(0, found["train"].shape[1], encoders.dim)
    return Features(
        train=found["train"],
        heldout=found["val"],
        train_labels={n: v[rows["train"]] for n, v in labels.items()},
        heldout_labels={n: v[rows["val"]] for n, v in labels.items()},
        classes=cases.classes,
        heldout_groups=groups[rows["val"]],
        split="val",
        columns={m: slice(at, at + encoders.dim) for m, at in zip(encoders.modalities, starts, strict=True)},
        train_groups=groups[rows["train"]],
    )


def judged(encoders: Encoders, cases: CaseStore, data: Data) -> dict[str, np.ndarray]:
    """The rows of the store that protocols learn from and are held out from them.

    A case that lacks the image of a modality cannot be judged and is left out.
    """
    whole = np.all([cases.has(m) for m in encoders.modalities], axis=0)
    train = "train" if data.labelled == "all" else f"train:{data.labelled}"
    found = {s: r[whole[r]] for s, r in (("train", cases.split(train)), ("val", cases.split("val")))}
    for split, rows in found.items():
        if not len(rows):
            raise UserError(f"data.modalities: no {split} case has images of {' and '.join(encoders.modalities)}")
    return found


def look_of(data: Data) -> Look:
    """How the study looks at images."""
    return Look(data.size, data.border, data.normalise)


@cache
def open_store(where: str) -> StageStore:
    """One handle per process: workers are warm and serve many stages."""
    return StageStore(where)


@cache
def open_case_store(data: str, cache_folder: str) -> CaseStore:
    """One mapping per process."""
    return open_cases(Data(**json.loads(data)), Path(cache_folder))


def describe(device: torch.device) -> str:
    """What it ran on, in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


Worker = Callable[[Job], Record]
