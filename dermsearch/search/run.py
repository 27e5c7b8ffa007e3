"""A study from its settings to its tables: checks first, then data, tree, engine, tables, figures."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from rich.console import Console

from dermsearch.config import Data, Study
from dermsearch.data.open import is_made, open_cases, store_folder
from dermsearch.data.splits import split_by_group
from dermsearch.data.store import CaseStore
from dermsearch.data.synthetic import draw_labels, walk_patients
from dermsearch.downstream import PROTOCOLS
from dermsearch.errors import UserError, nearest
from dermsearch.models.encoders import Encoders, check_encoder
from dermsearch.search.brain import Brain
from dermsearch.search.driver import Driver
from dermsearch.search.progress import Progress
from dermsearch.search.record import Recorder
from dermsearch.search.space import Space
from dermsearch.search.store import StageStore
from dermsearch.search.tree import DONE, FAILED, PRUNED
from dermsearch.studyfile import problem
from dermsearch.training.precision import resolve


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in numbers."""

    summary: dict[str, Any]
    failed: list[tuple[str, str]]  # (curriculum, error) of each stage that failed


def check(study: Study) -> Space:
    """Everything that can be wrong with a study beyond its form. Costs no compute, writes nothing."""
    space = Space(study)
    check_encoder(study.encoder.name)
    check_size(study)
    for name, config in study.downstream.items():
        if name not in PROTOCOLS:
            raise UserError(f"downstream.{name}: '{name}' is not a protocol; {nearest(name, PROTOCOLS)}")
        try:
            PROTOCOLS[name].Config.model_validate(config or {}, strict=True)
        except ValidationError as error:
            where, what = problem(dict(error.errors()[0]))
            if "unknown field" in what:
                what = f"unknown field; {nearest(where, PROTOCOLS[name].Config.model_fields)}"
            raise UserError(f"downstream.{name}.{where}: {what}") from None
    count = space.count()
    if study.search.sampler == "grid" and count is not None and study.search.trials is None and count > 100_000:
        raise UserError(f"search: the grid has {count} proposals; limit it with search.trials or use tpe")
    if study.published is not None:
        from dermsearch.results.published import TABLES, published

        if study.published not in TABLES:
            raise UserError(
                f"published: '{study.published}' is not a published table; {nearest(study.published, TABLES)}"
            )
        published(study.published)
    if study.data.source == "synthetic":
        check_images(study, space, drawn_for_training(study.data))
    return space


def check_size(study: Study) -> None:
    """Let the backbone look at a picture without pixels: some take one size only."""
    name, size = study.encoder.name, study.data.size
    try:
        encoders = Encoders.empty(name, ("derm",), "shared")
        encoders(torch.empty(2, 3, size, size, device="meta"), "derm")
    except NotImplementedError:
        return  # it cannot be tried without weights
    except Exception as error:  # of many kinds: every backbone has its own
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"encoder.name: '{name}' cannot see images of data.size, {size} px: {text}") from None


def drawn_for_training(data: Data) -> int:
    """How many of the built-in cases will be for training, told without drawing one; of very many, at most."""
    if data.transductive:
        return data.cases
    if data.cases > 5000:
        return math.ceil(0.72 * data.cases)
    patients = [f"P{patient:05d}" for _, patient, _ in walk_patients(data.cases, data.seed)]
    kinds = [draw_labels(data.seed, index)["diagnosis"] for index in range(data.cases)]
    return split_by_group(patients, kinds, data.seed).count("train")


def check_images(study: Study, space: Space, training: int) -> None:
    """What can be wrong with a study that trains its encoders on that many cases."""
    pooled = len(study.data.modalities) if study.encoder.branches == "shared" else 1
    space.check(training * pooled, 1)


def check_cases(study: Study, space: Space, cases: CaseStore) -> None:
    """What can be wrong between a study and its cases."""
    label = study.objective.label
    if label != "mean" and label not in cases.classes:
        raise UserError(
            f"objective.label: the cases have no label '{label}'; {nearest(label, [*cases.classes, 'mean'])}"
        )
    check_images(study, space, training_images(study, cases))


def training_images(study: Study, cases: CaseStore) -> int:
    """How many cases the encoders are trained on."""
    return len(cases) if study.data.transductive else len(cases.split("train"))


def cache_folder(store: StageStore) -> Path:
    """Case stores lie in the stage store where that is a folder, else in the user's cache."""
    return store.local / "data" if store.local else Path("~/.cache/dermsearch/data").expanduser()


def run_study(study: Study, out: Path, address: str | None, console: Console) -> Outcome:
    """Run a study to its end. What an earlier run finished is taken from the stage store."""
    started = time.perf_counter()
    space = check(study)
    store = StageStore(study.compute.store)
    prepare_folder(out, study)
    cache = cache_folder(store)
    if study.data.source == "synthetic" and not is_made(study.data, cache):
        console.print(f"Drawing {study.data.cases} cases of {study.data.size} px ...", highlight=False)
    cases = open_cases(study.data, cache)
    check_cases(study, space, cases)
    console.print(
        f"Study '{study.name}': {len(cases)} cases from {store_folder(study.data, cache)}; results go to {out}",
        highlight=False,
        soft_wrap=True,
    )
    precision = resolve(study.train.precision, study.compute.gpus)
    brain = Brain(space, study.search, out / "optuna.journal")
    progress = Progress(console, out / "tensorboard", lambda: recorder.write())
    driver = Driver(study, space, brain, store, cases.fingerprint, str(cache.absolute()), precision, progress.changed)
    recorder = Recorder(driver, out)
    progress.driver = driver
    with progress:
        try:
            run_engine(driver, address)
        finally:
            recorder.write()
    return summarise(driver, time.perf_counter() - started, out)


def run_engine(driver: Driver, address: str | None) -> None:
    """Let the study's engine work; a study whose stages are all in the store starts nothing."""
    if driver.idle():
        return
    if driver.study.compute.engine == "inline":
        from dermsearch.search.inline import run_inline

        run_inline(driver)
        return
    from dermsearch.search.cluster import run_ray

    run_ray(driver, address)


def prepare_folder(out: Path, study: Study) -> None:
    """The results folder, with the study as it was resolved."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
        (out / "study.yaml").write_text(text)
    except OSError as error:
        raise UserError(f"--out: '{out}' cannot be written to: {error.strerror}") from None


def summarise(driver: Driver, seconds: float, out: Path) -> Outcome:
    """Counts and the best curriculum."""
    stages = driver.tree.stages()
    trained = [n for n in stages if n.status == DONE and not n.reused]
    failed = [n for n in stages if n.status == FAILED]
    counts = {
        "proposed": len(stages),
        "trained": len(trained),
        "reused": sum(n.status == DONE and n.reused for n in stages),
        "failed": len(failed),
        "pruned": sum(n.status == PRUNED for n in stages),
    }
    summary = {
        "study": driver.study.name,
        "results": str(out),
        "store": driver.store.where,
        "trials": len(driver.trials),
        "stages": counts,
        "seconds": round(seconds, 2),
        "training_seconds": round(sum(n.record.get("seconds") or 0.0 for n in trained), 2),
        "judging_seconds": round(sum(n.record.get("judge_seconds") or 0.0 for n in trained), 2),
        "failures": [{"curriculum": n.curriculum, "seed": n.seed, "error": n.error} for n in failed],
    }
    return Outcome(summary, [(n.curriculum, n.error) for n in failed])
