"""Beside weights of a file, random ones are judged: never trained from, in every table, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

from conftest_search import Bench, make_study

from dermsearch.curriculum import RANDOM_WEIGHTS, ROOT_CURRICULUM
from dermsearch.engines.inline import run_inline
from dermsearch.results import load
from dermsearch.results.board.leaderboard import footnotes, leaderboard, summary
from dermsearch.results.pictures.figures import figures
from dermsearch.run.folder import prepare_folder
from dermsearch.run.record import Recorder
from dermsearch.run.run import summarise
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.roots import Start
from dermsearch.work.job import Job

SHORT = {"curriculum__length": [1, 1], "search__seeds": [0, 1]}


def driver_of(bench: Bench, weights: str) -> Driver:
    return bench.driver(make_study(**SHORT), starts=[Start("", "resnet10t", weights)])


def worth(job: Job) -> float:
    """Given weights are worth more than random ones, and training adds to both."""
    return 0.4 + 0.2 * bool(job.weights) + 0.1 * bool(job.task) + 0.01 * job.seed


def test_both_roots_are_judged_and_one_is_trained_from(bench: Bench) -> None:
    bench.score = worth
    driver = driver_of(bench, "abc")
    run_inline(driver, bench.work(driver))
    roots = [job for job in bench.jobs if not job.task]
    assert sorted((j.curriculum, j.weights, j.seed) for j in roots) == [
        *((ROOT_CURRICULUM, "abc", seed) for seed in (0, 1)),
        *((RANDOM_WEIGHTS, "", seed) for seed in (0, 1)),
    ]
    starts = {j.key for j in roots if j.weights}
    stages = [job for job in bench.jobs if job.task]
    assert len(stages) == 6 and {j.parent for j in stages} == starts and {j.weights for j in stages} == {"abc"}
    assert all(trial["seeds"] == 2 for trial in driver.window.trials) and len(driver.window.trials) == 3
    assert summarise(driver, 1.0, bench.folder).summary["stages"]["proposed"] == 6


def test_without_weights_there_is_one_root(bench: Bench) -> None:
    driver = driver_of(bench, "")
    run_inline(driver, bench.work(driver))
    assert {str(n.curriculum) for n in driver.tree.nodes.values() if not n.parent} == {ROOT_CURRICULUM}


def test_a_random_root_is_that_of_a_study_without_weights(bench: Bench) -> None:
    plain, given = driver_of(bench, ""), driver_of(bench, "abc")
    random = [n.key for n in given.tree.nodes.values() if str(n.curriculum) == RANDOM_WEIGHTS]
    assert random == [n.key for n in plain.tree.roots] and not {*random} & {
        given.tree.start(seed).key for seed in (0, 1)
    }


def test_a_random_root_that_cannot_be_judged_costs_no_stage(bench: Bench) -> None:
    bench.fail = {RANDOM_WEIGHTS}
    driver = driver_of(bench, "abc")
    run_inline(driver, bench.work(driver))
    assert all(n.status == "done" for n in driver.tree.stages())
    assert summarise(driver, 1.0, bench.folder).failed == [
        (f"{RANDOM_WEIGHTS}, seed {seed}", "on purpose") for seed in (0, 1)
    ]


def test_tables_leaderboard_and_figures_know_it(bench: Bench, tmp_path: Path) -> None:
    bench.score = worth
    driver = driver_of(bench, "abc")
    run_inline(driver, bench.work(driver))
    out = tmp_path / "out"
    prepare_folder(out, driver.study)
    Recorder(driver, out).write()
    results = load(out)
    assert set(results.pandas("scores").curriculum) == {ROOT_CURRICULUM, RANDOM_WEIGHTS, *driver.space.tasks}
    assert RANDOM_WEIGHTS not in set(results.pandas("stages").curriculum)
    rows = leaderboard(results)
    assert [row.curriculum for row in rows[-2:]] == [ROOT_CURRICULUM, RANDOM_WEIGHTS]
    random = rows[-1]
    assert (random.rank, random.length, random.order, random.seeds) == (None, 0, "", (0, 1))
    assert random.score is not None and abs(random.score - 0.405) < 1e-9
    assert random.delta_none is not None and abs(random.delta_none + 0.2) < 1e-9
    assert [row.rank for row in rows[:3]] == [1, 1, 1], "they score the same"
    told = summary(rows)
    assert abs(told["no_pre_training"] - 0.605) < 1e-9 and told["best"] in driver.space.tasks
    assert f"{ROOT_CURRICULUM}: the weights that encoder.weights names" in footnotes(rows)
    drawn = figures(out)
    assert {"curriculum.svg", "tree.svg"} <= {path.name for path in drawn}
    assert RANDOM_WEIGHTS in (out / "figures" / "curriculum.svg").read_text()
