from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest
from conftest_search import Bench, make_study

from dermsearch.engines.inline import run_inline
from dermsearch.results.tables.schema import read
from dermsearch.run.record import Recorder
from dermsearch.run.run import summarise
from dermsearch.search.tree.driver import FINISHED, WAIT
from dermsearch.work.job import Job


def test_each_prefix_is_trained_once_and_after_its_parent(bench: Bench) -> None:
    driver = bench.driver(make_study())
    run_inline(driver, bench.work(driver))
    done = [job.curriculum for job in bench.jobs]
    assert len(done) == len(set(done)) == 16, "15 stages and the root"
    for job in bench.jobs[1:]:
        before = [earlier.key for earlier in bench.jobs[: bench.jobs.index(job)]]
        assert " > " not in job.curriculum or job.parent in before
    assert {str(n.curriculum) for n in driver.tree.stages()} == {
        " > ".join(c) for n in (1, 2, 3) for c in itertools.permutations(driver.space.tasks, n)
    }


def test_a_second_run_trains_nothing_and_one_more_task_only_what_is_new(bench: Bench) -> None:
    two = {"tasks": {"moco_v2": {"queue": 64}, "odc": {"clusters": 4}}, "length": [1, 2]}
    first = bench.driver(make_study(curriculum=two))
    run_inline(first, bench.work(first))
    bench.jobs.clear()
    again = bench.driver(make_study(curriculum=two))
    assert again.idle()
    run_inline(again, bench.work(again))
    assert bench.jobs == []
    assert all(n.reused for n in again.tree.stages())
    assert [t["value"] for t in again.window.trials] == [t["value"] for t in first.window.trials]
    wider = bench.driver(make_study(curriculum__length=[1, 2]))
    run_inline(wider, bench.work(wider))
    assert len(bench.jobs) == 9 - 4
    assert all("relative_location" in job.curriculum for job in bench.jobs)


@pytest.mark.parametrize(
    ("before", "after", "trained", "judged"),
    [
        ({"curriculum__length": [1, 2]}, {"curriculum__length": [1, 3]}, 6, 0),
        ({}, {"downstream": {"linear": {}, "knn": {}}}, 0, 16),
        ({"search__seeds": [0]}, {"search__seeds": [0, 1]}, 15, 1),  # and another root to judge
        ({}, {"curriculum__order": "listed"}, 0, 0),
    ],
)
def test_extending_a_finished_study_costs_what_is_new(
    before: dict[str, Any], after: dict[str, Any], trained: int, judged: int, bench: Bench
) -> None:
    first = bench.driver(make_study(**before))
    run_inline(first, bench.work(first))
    bench.jobs.clear()
    second = bench.driver(make_study(**after))
    run_inline(second, bench.work(second))
    stages = second.tree.stages()
    counts = summarise(second, 1.0, bench.folder).summary["stages"]
    assert len(bench.jobs) == trained + judged
    assert counts["trained"] == trained and counts["reused"] == len(stages) - trained


def test_a_failed_stage_drops_its_subtree_and_nothing_else(bench: Bench) -> None:
    bench.fail = {"odc"}
    driver = bench.driver(make_study())
    run_inline(driver, bench.work(driver))
    status = {str(n.curriculum): n.status for n in driver.tree.stages()}
    assert status["odc"] == "failed"
    assert {c for c, s in status.items() if s == "dropped"} == {c for c in status if c.startswith("odc > ")}
    assert sum(s == "done" for s in status.values()) == 10
    assert {t["curriculum"]: t["status"] for t in driver.window.trials}["odc > moco_v2"] == "dropped"
    lost = next(n for n in driver.tree.stages() if str(n.curriculum) == "odc > moco_v2")
    assert lost.error == "dropped: odc failed"


def test_seeds_are_replicates_and_the_proposer_is_told_their_mean(bench: Bench) -> None:
    bench.score = lambda job: 0.1 * job.seed
    driver = bench.driver(make_study(search__seeds=[1, 2, 6]))
    run_inline(driver, bench.work(driver))
    assert len(bench.jobs) == 3 * 16
    assert all(t["value"] == pytest.approx(0.3) and t["seeds"] == 3 for t in driver.window.trials)


def test_a_driver_waits_for_parents_and_only_for_them(bench: Bench) -> None:
    driver = bench.driver(make_study())
    work = bench.work(driver)
    root, *three = [driver.next_job() for _ in range(4)]
    assert root.kind == "root", "the root's judging comes first, and nobody waits for it"
    assert [job.curriculum.count(" > ") for job in three] == [0, 0, 0]
    assert driver.next_job() == WAIT
    driver.done(work(three[1]))
    assert driver.next_job().parent == three[1].key


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_proposals_do_not_depend_on_who_finishes_first(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = []
    for backwards in (False, True):
        bench = Bench(tmp_path_factory.mktemp("run"), lambda job: len(job.curriculum) / 100)
        driver = bench.driver(make_study(search__sampler=sampler, search__trials=10, search__lag=3))
        work = bench.work(driver)
        while True:
            jobs = []
            while isinstance(job := driver.next_job(), Job):
                jobs.append(job)
            for job_ in reversed(jobs) if backwards else jobs:
                driver.done(work(job_))
            if job == FINISHED:
                break
        found.append([(t["curriculum"], t["value"]) for t in driver.window.trials])
    assert found[0] == found[1]
    assert len(found[0]) == 10 == len({c for c, _ in found[0]}), "no curriculum is proposed twice"


def test_prefixes_are_told_as_observations_and_intermediate_values(bench: Bench) -> None:
    driver = bench.driver(make_study(search__sampler="tpe", search__trials=4))
    run_inline(driver, bench.work(driver))
    trials = bench.proposer.journal.study.get_trials(deepcopy=False)
    proposed = [t for t in trials if "curriculum" in t.user_attrs and not t.user_attrs.get("prefix")]
    assert len(proposed) == 4
    for trial in proposed:
        tasks = trial.user_attrs["curriculum"].split(" > ")
        expected = {d: len(" > ".join(tasks[:d])) / 100 for d in range(1, len(tasks) + 1)}
        assert trial.intermediate_values == pytest.approx(expected)
        told = {t.user_attrs.get("curriculum"): t.value for t in trials if t.value is not None}
        for depth in range(1, len(tasks)):
            assert told[" > ".join(tasks[:depth])] == pytest.approx(expected[depth])


def test_the_journal_opens_in_optuna(bench: Bench) -> None:
    driver = bench.driver(make_study())
    run_inline(driver, bench.work(driver))
    backend = optuna.storages.journal.JournalFileBackend(str(bench.folder / "journal"))
    study = optuna.load_study(study_name="test", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 15
    assert study.best_trial.user_attrs["curriculum"] == max((t["curriculum"] for t in driver.window.trials), key=len)


def test_dimensions_are_searched_and_shared_settings_share_stages(bench: Bench) -> None:
    tasks = {"moco_v2": {"queue": 64, "temperature": {"choice": [0.1, 0.2]}}, "odc": {"clusters": 4}}
    driver = bench.driver(make_study(curriculum={"tasks": tasks, "length": [1, 2]}))
    run_inline(driver, bench.work(driver))
    names = [job.curriculum for job in bench.jobs[1:]]
    # moco x 2, odc, moco > odc x 2, odc > moco x 2
    assert sorted(names) == sorted(["moco_v2"] * 2 + ["odc"] + ["moco_v2 > odc"] * 2 + ["odc > moco_v2"] * 2)
    temperatures = {job.settings["config"]["temperature"] for job in bench.jobs if job.task == "moco_v2"}
    assert temperatures == {0.1, 0.2}


def test_tables_hold_failures_and_bugs_keep_their_traceback(bench: Bench) -> None:
    bench.fail = {"odc"}
    driver = bench.driver(make_study())
    run_inline(driver, bench.work(driver))
    out = bench.folder / "out"
    Recorder(driver, out).write()
    stages = read(out / "tables" / "stages.arrow").to_pandas().set_index("curriculum")
    assert stages.status["odc"] == "failed" and stages.error["odc"] == "on purpose"
    assert (stages.status == "dropped").sum() == 4
    assert "Traceback: here" in (out / "errors" / f"{stages.key['odc']}.txt").read_text()
    assert len(read(out / "tables" / "scores.arrow")) == 11, "ten stages and the root"


def test_a_root_that_cannot_be_judged_is_said_and_costs_no_stage(bench: Bench) -> None:
    bench.fail = {"no pre-training"}
    driver = bench.driver(make_study())
    run_inline(driver, bench.work(driver))
    outcome = summarise(driver, 1.0, bench.folder)
    counts = outcome.summary["stages"]
    assert counts == {"proposed": 15, "trained": 15, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    assert outcome.failed == [("no pre-training", "on purpose")]
