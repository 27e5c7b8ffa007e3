from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest_search import Bench, make_study
from pydantic import ValidationError

from dermsearch.engines.inline import run_inline
from dermsearch.results.tables.schema import read
from dermsearch.run.record import Recorder
from dermsearch.run.run import summarise
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import FINISHED, Driver
from dermsearch.work.job import Job
from dermsearch.work.record import Record

Make = Callable[..., Driver]


@pytest.fixture
def limited(bench: Bench) -> Make:
    """A driver with a budget that remembers, in the bench's results folder, what was paid for."""

    def make(limits: dict[str, Any], clock: Callable[[], float] = lambda: 0.0, **changes: Any) -> Driver:
        study = make_study(search__budget=limits, **changes)
        folder = bench.folder / "out"
        folder.mkdir(exist_ok=True)
        return bench.driver(study, budget=Budget(study.search.budget, folder, clock))

    return make


def trained(bench: Bench) -> list[str]:
    """What the worker did, roots aside, since this was last asked."""
    found = [job.curriculum for job in bench.jobs if job.task]
    bench.jobs.clear()
    return found


def run_with(driver: Driver, work: Callable[[Job], Record], workers: int, seed: int) -> None:
    """Any number of workers that finish in any order."""
    dice, under_way = random.Random(seed), []  # type: ignore[var-annotated]
    while True:
        while len(under_way) < workers and isinstance(job := driver.next_job(), Job):
            under_way.append(job)
        if not under_way:
            assert driver.next_job() == FINISHED
            return
        job = under_way.pop(dice.randrange(len(under_way)))
        driver.done(work(job))


@pytest.mark.parametrize(
    ("sampler", "limits", "stages"),
    [
        ("grid", {"stages": 7}, 7),
        ("grid", {"epochs": 9}, 4),
        ("grid", {"curricula": 5}, 5),
        ("grid", {"stages": 7, "epochs": 9}, 4),
        ("tpe", {"stages": 7}, 7),
        ("random", {"epochs": 20}, 10),
    ],
)
def test_what_is_counted_ends_the_run_at_the_same_stages_whatever_the_workers(
    sampler: str, limits: dict[str, Any], stages: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = []
    for workers in (1, 3, 16):
        bench = Bench(tmp_path_factory.mktemp("run"), lambda job: len(job.curriculum) / 100)
        bench.fail = {"moco_v2 > odc"}  # gives its children's room back
        study = make_study(search__budget=limits, search__sampler=sampler, search__lag=2)
        driver = bench.driver(study, budget=Budget(study.search.budget))
        run_with(driver, bench.work(driver), workers, seed=workers)
        found.append((sorted(trained(bench)), [(t["curriculum"], t["value"]) for t in driver.window.trials]))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == stages


def test_a_failure_gives_back_the_room_of_what_it_drops(limited: Make, bench: Bench) -> None:
    bench.fail = {"relative_location"}
    driver = limited({"stages": 12})
    run_inline(driver, bench.work(driver))
    assert len(trained(bench)) == 11, "all 15 but the 4 behind the failed one, though 12 were let in with those"
    assert not driver.budget.said(), "in the end there was room for everything"


def test_a_larger_budget_continues_and_the_same_one_does_not(limited: Make, bench: Bench) -> None:
    driver = limited({"stages": 4})
    run_inline(driver, bench.work(driver))
    first = trained(bench)
    assert len(first) == 4
    again = limited({"stages": 4})
    run_inline(again, bench.work(again))
    assert trained(bench) == []
    larger = limited({"stages": 9})
    run_inline(larger, bench.work(larger))
    assert len(trained(bench)) == 5 and larger.budget.spent["stages"] == 9
    assert sum(n.reused for n in larger.tree.stages()) == 4
    whole = limited({"stages": 15})
    run_inline(whole, bench.work(whole))
    assert len(trained(bench)) == 6 and not whole.budget.ended and not whole.left()


def test_a_run_that_was_killed_does_not_get_its_budget_twice(limited: Make, bench: Bench) -> None:
    killed = limited({"stages": 6})
    work = bench.work(killed)
    for _ in range(5):  # the root and four stages, of which the last is handed out and never finished
        job = killed.next_job()
        assert isinstance(job, Job)
        if len(bench.jobs) < 4:
            killed.done(work(job))
    assert len(trained(bench)) == 3
    again = limited({"stages": 6})
    run_inline(again, bench.work(again))
    assert len(trained(bench)) == 3


def test_stages_that_others_put_into_the_store_are_free(limited: Make, bench: Bench) -> None:
    other = bench.driver(make_study(curriculum__length=[1, 1]))
    run_inline(other, bench.work(other))
    trained(bench)
    driver = limited({"stages": 4})
    run_inline(driver, bench.work(driver))
    assert len(trained(bench)) == 4
    assert sum(n.reused for n in driver.tree.stages()) == 3 and driver.budget.spent["stages"] == 4


def test_what_a_kill_left_of_a_stage_is_paid_for_and_what_lacks_a_judgement_is_not(limited: Make, bench: Bench) -> None:
    other = bench.driver(make_study(curriculum__length=[1, 1]))
    run_inline(other, bench.work(other))
    killed, unjudged, _ = other.tree.stages()
    other.store.remove(f"stages/{killed.key}/manifest.json")
    (verdict,) = other.verdicts[unjudged.key]
    other.store.remove(f"scores/{other.judges.key(unjudged, verdict.judge)}.json")
    trained(bench)
    driver = limited({"stages": 4})
    run_inline(driver, bench.work(driver))
    assert driver.budget.spent["stages"] == 4 and len(driver.budget.paid) == 4
    assert killed.key in driver.budget.paid and unjudged.key not in driver.budget.paid
    assert len(trained(bench)) == 5, "one of them was only judged"


def test_when_the_time_is_up_nothing_begins_and_what_runs_finishes(limited: Make, bench: Bench) -> None:
    now = [0.0]
    driver = limited({"hours": 2}, clock=lambda: now[0])
    work = bench.work(driver)
    jobs = [driver.next_job() for _ in range(4)]
    now[0] = 2 * 3600.0
    assert driver.next_job() == "wait"
    for job in jobs:
        assert isinstance(job, Job)
        driver.done(work(job))
    assert driver.next_job() == FINISHED and driver.over
    assert len(trained(bench)) == 3 and driver.budget.ended == "hours" and len(driver.left()) == 12
    assert driver.budget.spent["stages"] == 3 and driver.budget.spent["epochs"] == 6
    assert [t["curriculum"] for t in driver.window.trials] == ["relative_location", "moco_v2", "odc"]


def test_what_the_store_has_is_taken_after_the_time_too(limited: Make, bench: Bench) -> None:
    first = bench.driver(make_study(curriculum__length=[1, 2]))
    run_inline(first, bench.work(first))
    driver = limited({"hours": 1}, clock=iter([0.0] + [4000.0] * 1000).__next__)
    run_inline(driver, bench.work(driver))
    assert sum(n.reused for n in driver.tree.stages()) == 9 and len(driver.left()) == 6


def test_gpu_hours_count_what_is_under_way(limited: Make, bench: Bench) -> None:
    """A stage takes half a second of a GPU; six would be trained if those under way were left out."""
    driver = limited({"gpu_hours": 1.6 / 3600}, compute={"engine": "inline", "gpus": 0.5})
    run_with(driver, bench.work(driver), workers=3, seed=0)
    assert len(trained(bench)) == 4 and driver.budget.ended == "gpu_hours"
    assert driver.budget.spent["gpu_hours"] == pytest.approx(2 / 3600)


def test_a_sampler_that_could_go_on_for_ever_is_ended(limited: Make, bench: Bench) -> None:
    tasks = {"moco_v2": {"queue": 64, "temperature": {"range": [0.1, 0.5]}}, "odc": {"clusters": 4}}
    for sampler in ("random", "tpe"):
        curriculum = {"tasks": tasks, "length": [1, 2]}
        driver = limited({"stages": 9}, search__sampler=sampler, curriculum=curriculum)
        (bench.folder / "out" / "paid.txt").unlink(missing_ok=True)
        driver.budget.paid.clear()
        run_inline(driver, bench.work(driver))
        new = trained(bench)
        assert len(new) == 9


def test_tables_and_summary_say_what_ended_the_run_and_what_was_left(limited: Make, bench: Bench) -> None:
    driver = limited({"stages": 4})
    run_inline(driver, bench.work(driver))
    out = bench.folder / "out"
    Recorder(driver, out, "a caveat").write()
    said = "the budget of 4 stages was used up with 11 proposed stages left"
    assert set(read(out / "tables" / "scores.arrow")["caveats"].to_pylist()) == {f"a caveat; {said}"}
    summary = summarise(driver, 1.0, out).summary
    assert summary["budget"]["ended_by"] == "stages" and summary["budget"]["said"] == said
    assert summary["budget"]["left"] == 11 and summary["budget"]["spent"]["stages"] == 4
    assert summary["stages"]["trained"] == 4


def test_the_journal_tells_of_all_that_was_finished_when_the_budget_ended(limited: Make, bench: Bench) -> None:
    driver = limited({"stages": 4})
    run_inline(driver, bench.work(driver))
    backend = optuna.storages.journal.JournalFileBackend(str(bench.folder / "journal"))
    study = optuna.load_study(study_name="test", storage=optuna.storages.JournalStorage(backend))
    assert {t.user_attrs["curriculum"]: t.value for t in study.trials} == {
        t["curriculum"]: t["value"] for t in driver.window.trials
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search__budget": {}}, "must name one or more of curricula, stages"),
        ({"search__budget": {"stages": 0}}, "greater than or equal to 1"),
        ({"search__budget": {"minutes": 3}}, "Extra inputs"),
        ({"search__budget": {"gpu_hours": 3.0}}, "goes with compute.gpus, which is 0"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_study(**changes)


def test_paid_for_is_shared_by_runs_of_one_folder(tmp_path: Path) -> None:
    limits = make_study(search__budget={"stages": 4}).search.budget
    one, two = Budget(limits, tmp_path), Budget(limits, tmp_path)
    one.pay("a")
    two.pay("b")
    one.pay("a")
    assert Budget(limits, tmp_path).paid == {"a", "b"}


def stops(work: Callable[[Job], Record], after: int | None) -> Callable[[Job], Record]:
    """A worker whose stages end after so many epochs, or do not say after how many."""

    def worker(job: Job) -> Record:
        record = work(job)
        return record.model_copy(update={"epochs": after}) if job.kind == "stage" else record

    return worker


def test_epochs_that_early_stopping_saved_are_spent_on_other_stages(limited: Make, bench: Bench) -> None:
    """Stages of two epochs that end after the first: eight instead of four, the ninth has no room to begin."""
    driver = limited({"epochs": 9})
    run_inline(driver, stops(bench.work(driver), 1))
    assert len(trained(bench)) == 8 == driver.budget.spent["epochs"]
    assert driver.budget.ended == "epochs" and len(driver.left()) == 7


def test_of_a_stage_behind_a_segment_only_its_own_epochs_count(limited: Make, bench: Bench) -> None:
    """Two rates of one epoch each; then one goes on to epoch 4, or ends early, after the third of all."""
    rates = {"tasks": {"simclr": {"lr": {"select": [0.01, 0.03], "epochs": 1}}}, "length": [1, 1]}
    train = {"epochs": 4, "batch": 16, "precision": "fp32"}
    driver = limited({"epochs": 100}, curriculum=rates, train=train)
    run_inline(driver, stops(bench.work(driver), 3))
    assert driver.budget.spent["epochs"] == 2 * 1 + 2


def test_a_stage_that_does_not_tell_its_epochs_gives_none_back(limited: Make, bench: Bench) -> None:
    driver = limited({"epochs": 9})
    run_inline(driver, stops(bench.work(driver), None))
    assert len(trained(bench)) == 4 and driver.budget.spent["epochs"] == 8


def test_fits_cost_time_and_no_stages(limited: Make, bench: Bench) -> None:
    """Two stages and their root are judged by a fit each; a fit takes a second of half a GPU, as a stage does."""
    fits: dict[str, Any] = {"downstream": {"finetune": {"epochs": 1}}, "objective": {"protocol": "finetune"}}
    for again in (False, True):  # a run that goes on has spent what the first one spent
        driver = limited({"stages": 2}, compute={"engine": "inline", "gpus": 0.5}, **fits)
        run_inline(driver, bench.work(driver))
        kinds = [job.kind for job in bench.jobs]
        assert (kinds.count("root"), kinds.count("stage"), kinds.count("fit")) == (1, 2, 3), again
        assert driver.budget.spent["stages"] == 2 and driver.budget.ended == "stages"
        assert driver.budget.spent["gpu_hours"] == pytest.approx(2.5 / 3600)
    other = bench.driver(driver.study, budget=Budget(driver.study.search.budget, bench.folder))
    run_inline(other, bench.work(other))
    assert other.budget.spent["gpu_hours"] < 2.5 / 3600, "what others paid for is free"
