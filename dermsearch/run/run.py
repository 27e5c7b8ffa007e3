"""A study from its settings to its tables: checks first, then data, tree, engine, tables, figures."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console

from dermsearch.data.open import drop_damaged, is_made, open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.engines.ray_cluster import Cluster, run_ray
from dermsearch.errors import UserError
from dermsearch.models.weights import fingerprint, read_weights
from dermsearch.run.check import check, check_cases
from dermsearch.run.loggers import make_loggers
from dermsearch.run.progress import Progress
from dermsearch.run.record import Recorder, ended_by
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.cost import prices
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.durations import own
from dermsearch.search.tree.node import DONE, DROPPED, FAILED, PRUNED, Node
from dermsearch.storage.leases import Claims
from dermsearch.storage.place import StoreLost
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.training.precision import resolve


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in numbers."""

    summary: dict[str, Any]
    failed: list[tuple[str, str]]  # (curriculum, error) of each stage that failed


def cache_folder(store: StageStore) -> Path:
    """Case stores lie in the stage store where that is a folder, else in the user's cache."""
    return store.local / "data" if store.local else Path("~/.cache/dermsearch/data").expanduser()


def run_study(study: Study, out: Path, address: str | None, console: Console) -> Outcome:
    """Run a study to its end. What an earlier run finished is taken from the stage store."""
    started = time.perf_counter()
    space = check(study)
    if study.data.source == "store" and "://" not in (study.data.path or ""):  # before anything is written
        check_cases(study, space, open_cases(study.data, Path()))
    store = StageStore(study.compute.store)
    prepare_folder(out, study)
    cache = cache_folder(store)
    with Cluster(study.compute, address) as cluster:
        cases = cases_of(study, cache, cluster, console)
        check_cases(study, space, cases)
        console.print(
            f"Study '{study.name}': {len(cases)} cases from {cases.folder}; results go to {out}",
            highlight=False,
            soft_wrap=True,
        )
        precision = resolve(study.train.precision, study.compute.gpus)
        proposer = Proposer(space, study.search, out / "optuna.journal", prices(space))
        loggers = make_loggers(study.logging, study.name, out)
        progress = Progress(console, loggers, lambda: recorder.write())
        place, changed = str(cache.absolute()), progress.changed
        weights = keep_weights(study, store)
        budget, claims = Budget(study.search.budget, out), Claims(store)
        driver = Driver(
            study, space, proposer, store, cases.fingerprint, place, precision, changed, weights, budget, claims
        )
        recorder = Recorder(driver, out, caveats(study, cases))
        progress.driver = driver
        with progress, claims:
            try:
                run_engine(driver, cluster)
            finally:
                recorder.write()
        return summarise(driver, time.perf_counter() - started, out)


def keep_weights(study: Study, store: StageStore) -> str:
    """Put the weights that curricula start with where every worker finds them; returns their file's hash."""
    path = study.encoder.weights
    if path is None:
        return ""
    weights = fingerprint(path)
    if store.weights(weights, study.encoder.name) is None:
        store.write_weights(weights, study.encoder.name, read_weights(path, study.encoder.name))
    return weights


def cases_of(study: Study, cache: Path, cluster: Cluster, console: Console) -> CaseStore:
    """The study's cases. While built-in ones are drawn for the first time, Ray starts: there will be work for it."""
    drop_damaged(study.data, cache)
    if study.data.source != "synthetic" or is_made(study.data, cache):
        return open_cases(study.data, cache)
    console.print(f"Drawing {study.data.cases} cases of {study.data.size} px ...", highlight=False)
    with ThreadPoolExecutor(1) as aside:
        cases = aside.submit(open_cases, study.data, cache)
        if study.compute.engine == "ray":
            cluster.open()
        return cases.result()


def caveats(study: Study, cases: CaseStore) -> str:
    """What every table must say of its numbers."""
    said = []
    if cases.split_by == "image":
        said.append("split by image, so a lesion may be on both sides")
    if study.data.transductive:
        said.append("pre-trained on validation and test images too")
    return "; ".join(said)


def run_engine(driver: Driver, cluster: Cluster) -> None:
    """Let the study's engine work; a study whose stages are all in the store starts nothing."""
    if driver.idle():
        return
    if driver.study.compute.engine == "inline":
        from dermsearch.engines.inline import run_inline

        run_inline(driver)
    else:
        try:
            run_ray(driver, cluster)
        except Exception:  # Tune keeps its notes in the store and wraps what is wrong with it in words of its own
            driver.store.prepare("stages")
            raise
    if driver.stopped:
        raise StoreLost(driver.stopped)


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
    done_here = [n for n in driver.tree.trained() if n.status == DONE and not n.reused]  # segments among them
    # A root's judging among them; a segment's failure is that of its stage, or of a rate that another one beats.
    failed = [n for n in driver.tree.nodes.values() if n.status == FAILED and not n.until]
    counts = {
        "proposed": len(stages),
        "trained": sum(not n.until for n in done_here),
        "reused": sum(n.status == DONE and n.reused for n in stages),
        "failed": sum(n.status == FAILED for n in stages),
        "pruned": sum(n.status == PRUNED for n in stages),
        "dropped": sum(n.status == DROPPED for n in stages),
    }
    summary = {
        "study": driver.study.name,
        "results": str(out),
        "store": driver.store.where,
        "trials": len(driver.trials),
        "stages": counts,
        "budget": {
            "ended_by": driver.budget.ended,
            "said": ended_by(driver),
            "spent": {name: round(spent, 4) for name, spent in driver.budget.spent.items()},
            "left": len(driver.left()),
        },
        "seconds": round(seconds, 2),
        "training_seconds": round(sum(own(n, "seconds") for n in done_here), 2),
        "judging_seconds": round(sum(n.record.get("judge_seconds") or 0.0 for n in done_here), 2),
        "overhead_seconds": overhead(done_here),
        "failures": [{"curriculum": str(n.curriculum), "seed": n.seed, "error": n.error} for n in failed],
    }
    return Outcome(summary, [(str(n.curriculum), n.error) for n in failed])


def overhead(trained: list[Node]) -> dict[str, float]:
    """What a warm process spends per job beside training and judging, from the end of its last job on."""
    last: dict[str, float] = {}
    found = []
    for node in sorted((n for n in trained if "ended" in n.record), key=lambda n: n.record["began"]):
        record, before = node.record, last.get(node.record["process"])
        if before is not None:
            found.append(record["ended"] - before - own(node, "seconds") - record["judge_seconds"])
        last[record["process"]] = record["ended"]
    if not found:
        return {}
    return {"median": round(median(found), 3), "max": round(max(found), 3), "stages": len(found)}
