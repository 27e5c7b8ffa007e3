"""What a pruner ends and which rate goes on, on made-up scores: the same whoever is faster, and no failure."""

from __future__ import annotations

import io
import json
import random
import zlib
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest_search import Bench, make_study
from rich.console import Console

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.engines.inline import run_inline
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.explain.regret import progress, walks
from dermsearch.results.tables.lineages import lineages
from dermsearch.results.tables.measure import Measure
from dermsearch.run.progress import Progress
from dermsearch.run.record import Recorder
from dermsearch.run.run import summarise
from dermsearch.search.space.rates import Selection
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.search.tree.node import DONE, FAILED, Node
from dermsearch.search.tree.rungs import choose
from dermsearch.study.config import Study
from dermsearch.work.job import Job

pytestmark = pytest.mark.slow

TASKS = ["relative_location", "moco_v2", "simclr", "rotation", "byol", "swav"]  # the later, the better


def merit(job: Job) -> float:
    """The better the later its tasks come in the list, and a little worse at the beginning of a stage."""
    tasks = job.curriculum.split(" > ")
    level = sum(TASKS.index(t) for t in tasks if t in TASKS) / len(tasks) / 10
    return round(0.2 + level - 0.1 / (job.until or 100), 6)


def rate(job: Job) -> float:
    return float(job.settings["train"]["lr"])


def by_rate(job: Job) -> float:
    """0.03 is best, whatever the stage; each seed lies a little elsewhere."""
    if not job.task:
        return 0.1
    return round(0.5 - abs(rate(job) - 0.03) + 0.01 * job.seed + 0.001 * (job.until or 9), 6)


def drive(bench: Bench, study: Study, workers: int = 1, budget: Budget | None = None) -> Driver:
    """The study with so many workers, of which now this and now that one is faster."""
    driver = bench.driver(study, budget=budget)
    work, order, busy = bench.work(driver), random.Random(workers), []
    while True:
        job = driver.next_job() if len(busy) < workers else WAIT
        if job == FINISHED and not busy:
            return driver
        if isinstance(job, Job):
            busy.append(job)
        else:
            assert busy, "it waits for nobody"
            done = busy.pop(order.randrange(len(busy)))
            driver.done(work(done))


def study_of(tasks: Any = tuple(TASKS), length: tuple[int, int] = (1, 2), epochs: int = 6, **search: Any) -> Study:
    named = tasks if isinstance(tasks, dict) else {t: {"queue": 64} if t == "moco_v2" else {} for t in tasks}
    train = {"epochs": epochs, "batch": 16, "precision": "fp32"}
    return make_study(curriculum={"tasks": named, "length": list(length)}, search=search, train=train)


def trials(driver: Driver) -> dict[str, dict[str, Any]]:
    return {t["curriculum"] + t["settings"]: t for t in driver.window.trials}


def test_a_prefix_behind_the_median_takes_its_subtree_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, merit)
    driver = drive(bench, study_of(length=(1, 3), pruner="median", lag=6))
    cut = [t for t in driver.window.trials if t["status"] == "pruned"]
    trained = {job.curriculum for job in bench.jobs}
    assert cut and all(c["value"] is None for c in cut)
    assert cut[0]["error"] == "pruned by median: relative_location came to 19.9 %"
    behind = {t["error"].split(": ")[1].split(" came")[0] for t in cut}
    assert "relative_location" in behind and not any(b.startswith("swav") for b in behind)
    for prefix in behind:
        first = next(i for i, t in enumerate(driver.window.trials) if f": {prefix} came" in t["error"])
        later = [t for t in driver.window.trials[first + 6 :] if t["curriculum"].startswith(f"{prefix} > ")]
        assert not later, "what stands on it is never proposed again"
    assert not any(name.startswith("relative_location > ") for name in trained), "known before it was begun"
    assert len(trained) < 156 / 2, "of as many stages"
    best = max((t for t in driver.window.trials if t["value"]), key=lambda t: t["value"])
    assert best["curriculum"] == "swav"
    outcome = summarise(driver, 1.0, tmp_path)
    assert not outcome.failed and outcome.summary["stages"]["pruned"] == sum(
        n.status == "pruned" for n in driver.tree.stages()
    )
    stages = {str(n.curriculum): n for n in driver.tree.stages()}
    assert stages[cut[0]["curriculum"]].status == "pruned" and stages[cut[0]["curriculum"]].error == cut[0]["error"]
    Recorder(driver, tmp_path / "out").write()
    measure = Measure("linear", "balanced_accuracy", "diagnosis", "val")
    assert progress(walks(load(tmp_path / "out"), measure))[-1].stages == len(trained) - 1, "and the root's judging"


SEARCHES: list[dict[str, Any]] = [
    {"pruner": "median", "seeds": [0, 1]},
    {"pruner": "halving", "rungs": [1, 3]},
    {"pruner": "hyperband", "rungs": [1, 3]},
    {"pruner": "halving", "sampler": "tpe", "trials": 14},
    {"pruner": "median", "sampler": "curriculum_prior", "trials": 14, "rungs": [2]},
    {"pruner": "halving", "sampler": "random", "trials": 14, "seeds": [0, 1, 2], "replicates": "leaders", "rungs": [2]},
    {"pruner": "wilcoxon", "seeds": [0, 1, 2, 3, 4], "sampler": "random", "trials": 12},
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: f"{s['pruner']}-{s.get('sampler', 'grid')}")
def test_what_is_pruned_does_not_depend_on_who_is_faster(tmp_path: Path, search: dict[str, Any]) -> None:
    tasks = {t: {"queue": 64} if t == "moco_v2" else {} for t in TASKS[:4]}
    tasks["simclr"] = {"lr": {"select": [0.01, 0.03, 0.1], "epochs": 1}}
    told = []
    for workers in (1, 3, 16):
        bench = Bench(tmp_path / str(workers), lambda job: merit(job) + zlib.crc32(job.key.encode()) % 97 / 1e5)
        driver = drive(bench, study_of(tasks, (1, 3), **search), workers)
        trained = sorted(job.key for job in bench.jobs)
        spent = {k: v for k, v in driver.budget.spent.items() if k != "gpu_hours"}
        table = [{k: v for k, v in t.items() if k != "seconds"} for t in driver.window.trials]
        verdicts = sorted((n.key, n.verdict) for n in driver.tree.trained() if n.until)
        told.append((table, trained, spent, verdicts))
        assert len(set(trained)) == len(trained)
        later = [n.key for n in driver.tree.trained() if n.until and n.seed]
        assert later == [] or search.get("replicates") != "leaders", "seeds that are not pruned are trained in one go"
    assert told[0] == told[1] == told[2]
    assert any(t["status"] == "pruned" for t in told[0][0]) and any(t["status"] == "done" for t in told[0][0])
    again = drive(bench, study_of(tasks, (1, 3), **search))  # everything is in the store
    assert [t["status"] for t in again.window.trials] == [t["status"] for t in told[0][0]]
    assert len(bench.jobs) == len(told[0][1])


def test_halving_at_rungs_trains_few_to_the_end_and_the_best_among_them(tmp_path: Path) -> None:
    rates = [0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3]
    random.Random(0).shuffle(rates)
    tasks = {"simclr": {"lr": {"choice": rates}}}
    bench = Bench(tmp_path, by_rate)
    driver = drive(bench, study_of(tasks, (1, 1), epochs=18, pruner="halving", rungs=[2, 6], lag=8))
    found = {json.loads(t["settings"])["simclr.lr"]: t for t in driver.window.trials}
    assert len(found) == 8 and found[0.03]["status"] == "done"
    done = [r for r, t in found.items() if t["status"] == "done"]
    assert 0 < len(done) < 5
    epochs = sum(n.epochs for n in driver.tree.trained() if n.status == DONE)
    assert (
        driver.budget.spent["epochs"]
        == epochs
        == 18 * len(done)
        + sum(2 if "after 2 of 18" in t["error"] else 6 for t in found.values() if t["status"] == "pruned")
    )
    assert epochs < 8 * 18 * 0.6
    path = tmp_path / "out"
    Recorder(driver, path).write()
    rows = leaderboard(load(path), protocol="linear", metric="balanced_accuracy", label="diagnosis")
    assert {r.status for r in rows if r.length} == {"done", "pruned"} and rows[0].score is not None
    assert "after 2 of 18 epochs" in next(r.error for r in rows if r.status == "pruned")


def test_the_journal_tells_of_pruned_trials_and_what_they_were_worth(tmp_path: Path) -> None:
    bench = Bench(tmp_path, merit)
    drive(bench, study_of(pruner="median", lag=6))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal")))
    study = optuna.load_study(study_name="test", storage=storage)
    cut = [t for t in study.trials if t.state == optuna.trial.TrialState.PRUNED]
    assert cut and all(list(t.intermediate_values) == [1] for t in cut)
    assert {t.user_attrs["curriculum"].split(" > ")[0] for t in cut} >= {"relative_location"}


def test_wilcoxon_ends_what_is_worse_on_every_seed_and_not_what_is_noisy(tmp_path: Path) -> None:
    """rotation lies under simclr on each of six seeds; byol now above and now below it."""
    level = {"simclr": 0.6, "rotation": 0.55, "byol": 0.6}

    def score(job: Job) -> float:
        tasks = job.curriculum.split(" > ")
        noise = (-1) ** job.seed * 0.02 * (tasks[0] == "byol") + 0.003 * job.seed
        return level.get(tasks[0], 0.1) + noise + 0.001 * len(tasks)

    bench = Bench(tmp_path, score)
    driver = drive(bench, study_of(list(level), (1, 2), pruner="wilcoxon", seeds=[0, 1, 2, 3, 4, 5], lag=3))
    status = {t["curriculum"]: t["status"] for t in driver.window.trials}
    assert {c for c, s in status.items() if s == "pruned"} == {c for c in status if c.startswith("rotation > ")}
    assert "rotation > simclr" in status and {"byol > simclr", "simclr > byol"} <= {
        c for c, s in status.items() if s == "done"
    }


def test_rates_are_chosen_after_each_parent_on_the_first_seed_and_cost_their_epochs(tmp_path: Path) -> None:
    """After rotation another rate is best than at the start; the second seed, which would choose otherwise, follows."""

    def score(job: Job) -> float:
        best = 0.1 if job.curriculum == "rotation > simclr" else 0.01
        return 0.5 - abs(rate(job) - (best if job.seed == 0 else 0.03)) if job.task == "simclr" else 0.3

    tasks = {"simclr": {"lr": {"select": [0.01, 0.03, 0.1], "epochs": 2}}, "rotation": {}}
    bench = Bench(tmp_path, score)
    driver = drive(bench, study_of(tasks, seeds=[0, 1]), 3)
    rates = {(str(n.curriculum), n.seed): n.settings["train"]["lr"] for n in driver.tree.stages() if n.task == "simclr"}
    assert rates == {("simclr", s): 0.01 for s in (0, 1)} | {("rotation > simclr", s): 0.1 for s in (0, 1)}
    segments = [n for n in driver.tree.trained() if n.until]
    assert len(segments) == 6 and {n.seed for n in segments} == {0} and all(n.status == DONE for n in segments)
    assert sum(n.verdict == "goes on" for n in segments) == 2
    stages = driver.tree.stages()
    assert len(stages) == 8 and driver.budget.spent["stages"] == 8
    assert driver.budget.spent["epochs"] == 8 * 6 + 2 * 2 * 2, "two rates of two epochs each came to nothing, twice"
    jobs = {job.key: job for job in bench.jobs}
    later = next(jobs[n.key] for n in stages if str(n.curriculum) == "rotation > simclr" and n.seed == 0)
    assert list(later.segments) == [n.key for n in segments if n.stage == later.key]
    assert later.parent == next(n.key for n in stages if str(n.curriculum) == "rotation" and n.seed == 0)
    assert (later.after, jobs[later.segments[0]].until) == ("stage", 2)
    Recorder(driver, tmp_path / "out").write()
    lines = lineages(load(tmp_path / "out"))
    assert {str(line.curriculum): str(line.parent[0]) for line in lines.values()} == {
        "rotation": ROOT_CURRICULUM,
        "simclr": ROOT_CURRICULUM,
        "rotation > simclr": "rotation",
        "simclr > rotation": "simclr",
    }, "stages stand on stages, not on their own segments"


@pytest.mark.parametrize("by", ["probe", "loss"])
def test_a_rate_that_breaks_is_not_chosen_and_only_all_of_them_fail_the_stage(tmp_path: Path, by: str) -> None:
    tasks = {"simclr": {"lr": {"select": [0.01, 0.03, 9.0], "epochs": 2, "by": by}}, "rotation": {}}
    bench = Bench(tmp_path / "one", by_rate)
    bench.breaks = lambda job: job.task == "simclr" and rate(job) == 9.0
    driver = drive(bench, study_of(tasks))
    assert {t["status"] for t in driver.window.trials} == {"done"} and not summarise(driver, 1.0, tmp_path).failed
    assert sum(n.status == FAILED for n in driver.tree.trained()) == 2, "and the table of segments says so"
    bench = Bench(tmp_path / "all", by_rate)
    bench.breaks = lambda job: job.task == "simclr"
    driver = drive(bench, study_of(tasks, seeds=[0, 1]), 2)
    status = {t["curriculum"]: t["status"] for t in driver.window.trials}
    assert (status.pop("rotation"), status.pop("simclr > rotation")) == ("done", "dropped")
    assert status == {"simclr": "failed", "rotation > simclr": "failed"}
    failed = {c for c, _ in summarise(driver, 1.0, tmp_path).failed}
    assert failed == {"simclr, seed 0", "rotation > simclr, seed 0"}
    assert not [n for n in driver.left() if n.seed == 1]


def test_a_stage_that_breaks_at_a_rung_has_failed_and_was_not_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, merit)
    bench.breaks = lambda job: job.task == "simclr" and job.until == 3
    driver = drive(bench, study_of(TASKS[:3], pruner="halving", rungs=[1, 3], lag=3), 2)
    stage = next(n for n in driver.tree.stages() if str(n.curriculum) == "simclr")
    assert (stage.status, stage.error) == ("failed", "on purpose")
    assert {t["curriculum"]: t["status"] for t in driver.window.trials}["simclr"] == "failed"
    begun = [n for n in driver.tree.trained() if n.record]
    assert any(n.status == FAILED for n in begun) and driver.budget.spent["epochs"] == sum(n.epochs for n in begun)


def test_a_budget_that_ends_among_segments_is_continued_by_a_larger_one(tmp_path: Path) -> None:
    tasks = {"simclr": {"lr": {"select": [0.01, 0.03], "epochs": 2}}, "rotation": {}, "byol": {}}
    search: dict[str, Any] = {"pruner": "halving", "rungs": [3], "seeds": [0, 1]}
    whole = Bench(tmp_path / "whole", by_rate)
    want = drive(whole, study_of(tasks, **search))
    parts = Bench(tmp_path / "parts", by_rate)
    before = 0.0
    for epochs in (3, 11, 40, 1000):
        study = study_of(tasks, **search, budget={"epochs": epochs})
        (tmp_path / "out").mkdir(exist_ok=True)
        driver = drive(parts, study, 3, Budget(study.search.budget, tmp_path / "out"))
        assert before <= driver.budget.spent["epochs"] <= epochs
        before = driver.budget.spent["epochs"]
    assert driver.budget.spent["epochs"] == want.budget.spent["epochs"]
    assert [(t["curriculum"], t["status"], t["value"]) for t in driver.window.trials] == [
        (t["curriculum"], t["status"], t["value"]) for t in want.window.trials
    ]


def test_a_segment_that_lacks_its_judgement_is_trained_again_and_paid_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, by_rate)
    for by, epochs in (("loss", 6 + 2), ("probe", 2 + 2), ("probe", 0)):
        tasks = {"simclr": {"lr": {"select": [0.01, 0.03], "epochs": 2, "by": by}}}
        driver = drive(bench, study_of(tasks, (1, 1)))
        assert driver.budget.spent["epochs"] == epochs, by


def test_a_run_says_once_what_was_pruned_and_why(tmp_path: Path) -> None:
    bench, said = Bench(tmp_path, merit), io.StringIO()
    driver = bench.driver(study_of(pruner="halving", rungs=[2], lag=6))
    with Progress(Console(file=said, width=200), driver, [], lambda: None):
        run_inline(driver, bench.work(driver))
    lines = [line for line in said.getvalue().splitlines() if "pruned by" in line]
    assert len(lines) == len({cut.behind for cut in driver.window.cut.values()}) > 2
    assert all(any(cut.why in line for line in lines) for cut in driver.window.cut.values())
    assert any("relative_location came to 19.9 %" in line for line in lines)
    assert any(" % after 2 of 6 epochs" in line for line in lines)


def candidate(lr: float, loss: float, std: float = 1.0, rank: float = 9.0, status: str = DONE) -> Node:
    last = {"loss": loss, "embedding_std": std, "effective_rank": rank}
    settings = {"train": {"lr": lr, "epochs": 9}}
    return Node(str(lr), 0, settings=settings, until=1, status=status, record={"last": last})


@pytest.mark.parametrize(
    ("candidates", "best"),
    [
        ([candidate(0.1, 2.0), candidate(0.2, 1.0), candidate(0.3, 3.0)], 0.2),
        ([candidate(0.1, 1.0), candidate(0.2, 1.0)], 0.2),
        ([candidate(0.1, 2.0), candidate(0.2, -1.0, std=0.01)], 0.1),
        ([candidate(0.1, 2.0), candidate(0.2, -1.0, rank=1.1)], 0.1),
        ([candidate(0.1, 2.0, rank=1.5), candidate(0.2, -1.0, rank=1.1)], 0.1),
        ([candidate(0.1, 2.0, rank=1.1), candidate(0.2, 0.0, status=FAILED)], 0.1),
    ],
    ids=["lowest loss", "of equals the largest", "spread", "rank", "all collapsed", "failed"],
)
def test_the_loss_decides_among_those_that_have_not_collapsed(candidates: list[Node], best: float) -> None:
    assert choose(candidates, Selection((0.1, 0.2), 1, "loss")).settings["train"]["lr"] == best


def test_what_was_pruned_before_its_rate_was_known_says_so_in_the_leaderboard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, merit)
    tasks = {t: {"queue": 64} if t == "moco_v2" else {} for t in TASKS}
    tasks["swav"] = {"lr": {"select": [0.01, 0.03], "epochs": 1}}
    driver = drive(bench, study_of(tasks, pruner="median", lag=6))
    Recorder(driver, tmp_path / "out").write()
    rows = leaderboard(load(tmp_path / "out"), protocol="linear", metric="balanced_accuracy", label="diagnosis")
    row = next(r for r in rows if r.curriculum == "relative_location > swav")
    assert (row.status, row.error) == ("pruned", "pruned by median: relative_location came to 19.9 %")
