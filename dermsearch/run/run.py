"""A study from its settings to its tables: checks first, then data, tree, engine, tables, figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console

from dermsearch.data.mixed import both_in, left_out, open_sets
from dermsearch.data.open import drop_damaged, is_made, open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.engines.ray_cluster import Cluster, run_ray
from dermsearch.run.check import check, check_cases, check_machine, class_counts
from dermsearch.run.credentials import keys_aside
from dermsearch.run.folder import check_folder, prepare_folder
from dermsearch.run.here import here, opened
from dermsearch.run.live import LiveReport
from dermsearch.run.loggers import make_loggers
from dermsearch.run.naming import named
from dermsearch.run.progress import Progress
from dermsearch.run.record import Recorder, ended_by
from dermsearch.run.roots import keep_weights, starts
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.cost import prices
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.durations import own
from dermsearch.search.tree.node import DONE, DROPPED, FAILED, PRUNED, Node
from dermsearch.storage.files import StoreLost
from dermsearch.storage.leases import Claims
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.data import Data
from dermsearch.training.precision import resolve
from dermsearch.words import many
from dermsearch.work.job import Cases

T = TypeVar("T")


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
    check_folder(out, study)
    if not address:
        check_machine(study)
    check_cases(study, space, {name: opened(study, name, Path()) for name in here(study)})
    with keys_aside(study, address) as study, Cluster(study.compute, address, console.print) as cluster:
        if address:  # the slowest to answer, and the likeliest to be wrong; until here nothing is written
            cluster.open()
        store = StageStore(study.compute.store)
        cache = cache_folder(store)
        stores = open_sets(
            study.sets, cache, lambda data: open_or_draw(data, study, cache, cluster, console), console.print
        )
        check_cases(study, space, stores)
        prepare_folder(out, study)  # now that nothing is refused any more: a name is not taken by what never began
        sets = dict.fromkeys(f"{many(len(cases), 'case')} from {cases.folder}" for cases in stores.values())
        console.print(f"Study '{study.name}': {', '.join(sets)}; results go to {out}", highlight=False, soft_wrap=True)
        proposer = Proposer(space, study.search, out / "optuna.journal", prices(space))
        keep_weights(study, store)
        claims = Claims(store)
        driver = Driver(
            study,
            space,
            proposer,
            store,
            sets_of(study, stores),
            starts(study),
            str(cache.absolute()),
            resolve(study.train.precision, study.compute.gpus),
            Budget(study.search.budget, out),
            claims,
        )
        recorder = Recorder(driver, out, caveats(study, stores), {name: c.grouped for name, c in stores.items()})
        progress = Progress(console, driver, make_loggers(study.logging, study.name, out), recorder.write)
        live = LiveReport(out, progress.under_way, console.print)
        with live, progress, claims, written(recorder):
            run_engine(driver, cluster)
        return summarise(driver, time.perf_counter() - started, out)


@contextmanager
def written(recorder: Recorder) -> Iterator[None]:
    """The tables are written at the end, whatever ended it; that they cannot be hides nothing else."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            recorder.write()
        raise
    recorder.write()


def sets_of(study: Study, stores: Mapping[str, CaseStore]) -> dict[str, Cases]:
    """The study's data sets as jobs name them: their stores are found from any working folder."""
    return {
        name: Cases(data=placed(study.sets[name], cases), fingerprint=cases.fingerprint)
        for name, cases in stores.items()
    }


def placed(data: Data, cases: CaseStore) -> Data:
    """With a path that holds in any working folder; a mixture as the store that it was made into."""
    if data.source == "mix":
        own = {"source": "store", "path": str(cases.folder.absolute()), "mix": (), "without": (), "weights": "size"}
        return data.model_copy(update=own)  # the store knows its weights
    if not data.path or "://" in data.path:
        return data
    return data.model_copy(update={"path": str(Path(data.path).expanduser().absolute())})


def open_or_draw(data: Data, study: Study, cache: Path, cluster: Cluster, console: Console) -> CaseStore:
    """A data set's cases. While built-in ones are drawn for the first time, Ray starts: there will be work for it."""
    drop_damaged(data, cache)
    if data.source != "synthetic" or is_made(data, cache):
        return open_cases(data, cache)
    console.print(f"Drawing {many(data.cases, 'case')} of {data.size} px ...", highlight=False)
    if study.compute.engine != "ray":
        return open_cases(data, cache)
    cluster.load()
    cases = beside(lambda: open_cases(data, cache))
    cluster.open()
    return cases.result()


def beside(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread that nobody waits for who is interrupted: to draw many cases takes long."""
    found = Future[T]()

    def do() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return found


def caveats(study: Study, stores: Mapping[str, CaseStore]) -> str:
    """What every table must say of its numbers."""
    said = []
    for name, cases in stores.items():
        of = f" of {name}" if len(stores) > 1 else ""
        if cases.split_by == "image":
            said.append(f"split{of} by image, so a lesion may be on both sides")
        if made := cases.settings.get("made"):
            said.append(f"{name} holds {made}")
        said += scarce(study, name, cases)
    for name, data in study.sets.items():
        if data.without:
            few = many(left_out(stores[name]), "image")
            said.append(f"{name} lacks {few} that also stand in {' or '.join(data.without)}")
    said += overlaps(study, stores)
    if study.main.transductive:
        said.append("pre-trained on validation and test images too")
    return "; ".join(said)


def scarce(study: Study, name: str, cases: CaseStore) -> list[str]:
    """Classes that have fewer training cases than a line of `downstream` asks labels of."""
    asked = [each for entry in study.entries.values() if entry.data == name for each in entry.labelled]
    most, counts = max((int(n) for n in asked if n.isdigit()), default=0), class_counts(cases)
    said = []
    for label in {study.objective.label} & counts.keys():
        few = [cls for cls, n in zip(cases.classes[label], counts[label], strict=True) if n < most]
        if few:
            some = ", ".join(few[:3]) + ", ..." * (len(few) > 3)
            lack = f"{many(len(few), 'class', 'classes')} of {label} ({some})"
            of = f" of {name}" * (len(study.sets) > 1)
            said.append(f"{lack} with fewer than {most} training cases{of}: all count")
    return said


def overlaps(study: Study, stores: Mapping[str, CaseStore]) -> list[str]:
    """Data sets that are judged on, of which images are also in what stages train on.

    The same store under another name, to be judged in another way, has the same splits.
    """
    first = next(iter(stores))
    said = []
    for name in (name for name, cases in stores.items() if cases.folder != stores[first].folder):
        if name in {entry.data for entry in study.entries.values()} and name not in (*study.main.mix,):
            found = both_in(stores[first], stores[name])
            if found:
                some = "; ".join(f"{image} {why}" for image, why in list(found.items())[:2])
                more = ", and others" * (len(found) > 2)
                said.append(f"{many(len(found), 'image')} of {first} also stand in {name}: {some}{more}")
    return said


def run_engine(driver: Driver, cluster: Cluster) -> None:
    """Let the study's engine work; a study whose stages are all in the store starts nothing."""
    if driver.idle():
        return
    driver.store.prepare("stages")  # one that cannot be written to was good enough until here
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


def summarise(driver: Driver, seconds: float, out: Path) -> Outcome:
    """Counts, and whatever failed."""
    stages, fits = driver.tree.stages(), driver.tree.fits()
    here = [n for n in driver.tree.trained() if n.status == DONE and not n.reused]  # segments among them
    # A root's judging among them; a segment's failure is that of its stage, or of a rate that another one beats.
    failures = [(n, n.error) for n in driver.tree.nodes.values() if n.status == FAILED and not n.until and not n.judge]
    unjudged = [
        (driver.tree.nodes[key], f"{verdict.judge}: {verdict.reason}")
        for key, verdicts in driver.verdicts.items()
        for verdict in verdicts
        if verdict.judgement is None
    ]

    def count(nodes: list[Node], status: str, reused: bool | None = None) -> int:
        return sum(n.status == status and reused in (None, n.reused) for n in nodes)

    lost = failures + unjudged
    summary = {
        "study": driver.study.name,
        "results": str(out),
        "store": driver.store.where,
        "trials": len(driver.window.trials),
        "stages": {
            "proposed": len(stages),
            "trained": count(stages, DONE, False),
            "reused": count(stages, DONE, True),
            "failed": count(stages, FAILED),
            "pruned": count(stages, PRUNED),
            "dropped": count(stages, DROPPED),
        },
        "fits": {"trained": count(fits, DONE, False), "reused": count(fits, DONE, True)},
        "judgements": {"failed": len(unjudged)},
        "budget": {
            "ended_by": driver.budget.ended,
            "said": ended_by(driver),
            "spent": {name: round(spent, 4) for name, spent in driver.budget.spent.items()},
            "left": len(driver.left()),
        },
        "seconds": round(seconds, 2),
        "training_seconds": round(sum(own(n, "seconds") for n in here), 2),
        "judging_seconds": round(sum(n.record.get("judge_seconds") or 0.0 for n in here), 2),
        "overhead_seconds": overhead(here),
        "failures": [{"curriculum": str(n.curriculum), "seed": n.seed, "error": error} for n, error in lost],
    }
    return Outcome(summary, [(named(n, driver.space, driver.study.search.seeds), error) for n, error in lost])


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
