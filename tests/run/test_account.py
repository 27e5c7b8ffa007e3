"""What a run has spent: by stages that failed, by earlier runs, and by proposals that a budget cut short."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest_search import Bench, make_study

from dermsearch.engines.inline import run_inline
from dermsearch.results import load
from dermsearch.results.explain.regret import progress, walks
from dermsearch.results.tables.measure import choose
from dermsearch.run.folder import prepare_folder
from dermsearch.run.record import Recorder
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import Driver
from dermsearch.study.config import Limits
from dermsearch.work.job import Job
from dermsearch.work.record import Record


def test_a_stage_that_fails_has_spent_its_hours(bench: Bench) -> None:
    study = make_study(curriculum__length=[1, 1], compute={"engine": "inline", "gpus": 0.5})
    driver = bench.driver(study, budget=Budget(Limits(gpu_hours=100.0)))
    bench.fail, work = {"odc"}, bench.work(driver)

    def worker(job: Job) -> Record:
        return work(job).model_copy(update={"began": 1000.0, "ended": 8200.0})  # two hours

    run_inline(driver, worker)
    done = sum(n.record["seconds"] for n in driver.tree.stages() if n.status == "done")
    assert driver.budget.spent["gpu_hours"] == pytest.approx(0.5 * (2 + done / 3600))


def test_what_trials_took_is_told_by_a_run_that_trained_nothing(bench: Bench) -> None:
    told = []
    for _ in range(2):
        driver = bench.driver(make_study(curriculum__length=[1, 2]))
        run_inline(driver, bench.work(driver))
        told.append([trial["seconds"] for trial in driver.window.trials])
    assert told[0] == told[1] and sum(told[0]) > 0


def written(bench: Bench, driver: Driver) -> Path:
    out = bench.folder / "out"
    prepare_folder(out, driver.study)
    Recorder(driver, out).write()
    return out


def test_what_a_budget_cut_short_is_counted(bench: Bench) -> None:
    """A proposal of three stages of which two are trained is in no table of trials."""
    study = make_study(curriculum__length=[3, 3], search__budget={"stages": 2})
    driver = bench.driver(study, budget=Budget(study.search.budget, bench.folder))
    run_inline(driver, bench.work(driver))
    results = load(written(bench, driver))
    trained = len(results.stages)
    assert trained == 2 and not len(results.trials)
    assert progress(walks(results, choose(results)))[-1].stages == trained
