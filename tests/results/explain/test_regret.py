"""The tables that a driver really writes, explained: what was begun, dropped and chosen is counted as it was paid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_search import Bench, make_study

from dermsearch.results import Results, load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.explain.evidence import from_study
from dermsearch.results.explain.explain import explain
from dermsearch.results.explain.regret import progress, walks
from dermsearch.results.explain.text import search_table
from dermsearch.results.tables.lineages import lineages
from dermsearch.results.tables.measure import choose
from dermsearch.run.record import Recorder
from dermsearch.search.tree.driver import FINISHED, Driver
from dermsearch.work.job import Job

RATES = [0.01, 0.03, 0.1]


def letters(job: Job) -> float:
    return len(job.curriculum) / 100


def finished(
    folder: Path,
    tasks: dict[str, Any],
    length: tuple[int, int] = (1, 2),
    epochs: int = 4,
    score: Callable[[Job], float] = letters,
    fail: str = "",
    **search: Any,
) -> tuple[Driver, Results]:
    """A study searched to its end by a worker that trains nothing, and its tables."""
    bench = Bench(folder, score)
    bench.fail = {fail}
    train = {"epochs": epochs, "batch": 16, "precision": "fp32"}
    driver = bench.driver(make_study(curriculum={"tasks": tasks, "length": list(length)}, train=train, search=search))
    work = bench.work(driver)
    while isinstance(job := driver.next_job(), Job):
        driver.done(work(job))
    assert job == FINISHED
    Recorder(driver, folder / "out").write()
    return driver, load(folder / "out")


def cost(results: Results, shared: bool = True) -> tuple[float, float]:
    """Stages and seconds of the whole search."""
    end = progress(walks(results, choose(results)), shared)[-1]
    return end.stages, end.seconds


def test_rates_that_were_not_chosen_cost_their_epochs(tmp_path: Path) -> None:
    tasks = {"odc": {"clusters": 4}, "simclr": {"lr": {"select": RATES, "epochs": 1}}}
    _, results = finished(tmp_path, tasks)
    assert len(results.stages) == 4 and len(results.segments) == 6, "three rates alone, three behind odc"
    # Each whole stage takes a second; two rates of four epochs are tried for one, for half a second each, twice.
    assert cost(results) == (4 + 4 / 4, 4 + 4 * 0.5)
    assert cost(results, shared=False) == (1 + 1.5 + 2.5 + 2.5, 1 + 2 + 3 + 3)
    table = next(iter(search_table(from_study(results))))
    assert [str(list(column.cells)[-1]) for column in table.columns][:4] == ["all proposals", "5", "7.5", "1.5 x"]


def test_a_stage_behind_segments_has_its_parent_in_the_tables(tmp_path: Path) -> None:
    _, results = finished(tmp_path, {"odc": {}, "simclr": {"lr": {"select": RATES, "epochs": 1}}}, (2, 2))
    stages = {s["curriculum"]: s for s in results.stages.to_pylist()}
    assert stages["odc > simclr"]["parent"] == stages["odc"]["key"]
    behind = [s for s in results.segments.to_pylist() if s["curriculum"] == "odc > simclr"]
    assert {s["parent"] for s in behind} == {stages["odc"]["key"]}
    line = next(line for line in lineages(results).values() if str(line.curriculum) == "odc > simclr")
    assert len(line.key.settings) == 2 and str(line.parent.curriculum) == "odc"
    row = next(r for r in leaderboard(results) if r.curriculum == "odc > simclr")
    assert row.delta_first == pytest.approx((len("odc > simclr") - len("odc")) / 100)


def test_a_stage_that_was_pruned_at_a_rung_costs_its_epochs(tmp_path: Path) -> None:
    rates = [0.1, 0.02, 0.3, 0.03, 0.01, 0.05]
    driver, results = finished(
        tmp_path, {"simclr": {"lr": {"choice": rates}}}, (1, 1), 18, lambda job: by_rate(job), pruner="halving",
        rungs=[2, 6], lag=6,
    )  # fmt: skip
    assert {t["status"] for t in driver.window.trials} == {"done", "pruned"}
    stages, seconds = cost(results)
    assert stages == pytest.approx(driver.budget.spent["epochs"] / 18)
    longest = {s["stage"]: s["seconds"] for s in sorted(results.segments.to_pylist(), key=lambda s: s["until"])}
    pruned = [s["key"] for s in results.stages.to_pylist() if s["status"] == "pruned"]
    assert seconds == sum(longest[key] for key in pruned) + len(results.stages) - len(pruned)


def by_rate(job: Job) -> float:
    return 0.5 - abs(job.settings["train"]["lr"] - 0.03) if job.task else 0.1


def test_what_a_failure_left_untrained_is_dropped_and_costs_nothing(tmp_path: Path) -> None:
    _, results = finished(tmp_path, {"odc": {}, "rotation": {}}, fail="odc")
    assert {str(line.curriculum): line.status for line in lineages(results).values()}["odc > rotation"] == "dropped"
    assert cost(results)[0] == 3, "odc failed, what stands on it was never begun"
    found = explain(from_study(results))
    assert {(d.name, d.status, d.error) for d in found.evidence.dropped} == {
        ("odc", "failed", "on purpose"),
        ("odc > rotation", "dropped", "odc failed"),
    }
    assert found.evidence.proposals == {"done": 2, "failed": 1, "dropped": 1}


def test_what_was_pruned_before_it_was_begun_costs_nothing(tmp_path: Path) -> None:
    tasks: dict[str, Any] = {"relative_location": {}, "simclr": {}, "rotation": {}, "byol": {}, "swav": {}}
    driver, results = finished(
        tmp_path, tasks, (1, 2), score=lambda job: 0.9 - letters(job), pruner="median", lag=5
    )  # fmt: skip
    trained = [s for s in results.stages.to_pylist() if s["status"] == "done"]
    pruned = [s for s in results.stages.to_pylist() if s["status"] == "pruned"]
    assert pruned and {line.status for line in lineages(results).values()} == {"done", "pruned"}
    assert cost(results) == (len(trained), len(trained)) and driver.window.trials
