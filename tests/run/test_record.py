"""What tables a run leaves, and what it holds of what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_search import Bench, make_study

from dermsearch.engines.inline import run_inline
from dermsearch.results.tables.schema import build, read, write
from dermsearch.run.record import WHEN, Recorder, when
from dermsearch.search.tree.driver import Driver
from dermsearch.work.job import Job
from dermsearch.work.record import Record


class Interrupted(BaseException):
    """Ctrl-C."""


def run(bench: Bench, study: Any, stop: Callable[[Job], bool] = lambda job: False) -> Driver:
    """As `run_study` does it: tables at every change and at the end, whatever ends it."""
    driver = bench.driver(study)
    recorder, work = Recorder(driver, bench.folder / "out"), bench.work(driver)
    driver.on_change = lambda node: recorder.write()

    def worker(job: Job) -> Record:
        if stop(job):
            raise Interrupted
        return work(job)

    try:
        run_inline(driver, worker)
    except Interrupted:
        pass
    finally:
        recorder.write()
    return driver


def stages(folder: Path) -> set[str]:
    return set(read(folder / "out" / "tables" / "stages.arrow")["key"].to_pylist())


@pytest.mark.parametrize("sampler", ["grid", "curriculum_prior"])
def test_a_run_that_is_interrupted_takes_nothing_from_the_tables(bench: Bench, sampler: str) -> None:
    """`store gc --studies` would throw away what tables no longer name."""
    study = make_study(curriculum__length=[1, 2], search__sampler=sampler, search__trials=6)
    run(bench, study)
    before = stages(bench.folder)
    assert len(before) >= 6
    names = sorted(bench.driver(study).store.listed("scores"))
    for name in (names[0], names[-1]):  # a judgement is gone, so that something is to be done again
        (bench.folder / "store" / "scores" / name).unlink()
    ended = run(bench, study, lambda job: True)
    assert not ended.over and stages(bench.folder) == before
    run(bench, study)
    assert stages(bench.folder) == before


def test_tables_grow_with_a_run_that_goes_beyond_the_one_before(bench: Bench) -> None:
    run(bench, make_study(curriculum__length=[1, 1]))
    seen: list[int] = []

    def stop(job: Job) -> bool:
        seen.append(len(stages(bench.folder)))
        return len(seen) > 3

    ended = run(bench, make_study(curriculum__length=[1, 2]), stop)
    assert not ended.over and seen[0] == 3 and len(stages(bench.folder)) == 6, "three of before and three of its own"


def test_a_table_of_an_earlier_version_tells_when_its_stages_were_trained(tmp_path: Path) -> None:
    """Though it does not say with which libraries."""
    row = {"key": "a", "process": "vm/1", "began": 1.0, "ended": 2.0, "libraries": "torch 2"}
    for known in (row, {k: v for k, v in row.items() if k != "libraries"}):
        table = build("stages", [row]).select([*known])
        write(table, tmp_path / "tables" / "stages.arrow")
        assert when(tmp_path)["a"] == {n: known.get(n) for n in WHEN}


def test_keys_of_an_earlier_version_hold_nothing_back(bench: Bench) -> None:
    study = make_study(curriculum__length=[1, 1])
    run(bench, study)
    before = stages(bench.folder)
    other = study.model_copy(update={"train": study.train.model_copy(update={"epochs": 3})})  # as other keys are
    ended = run(bench, other, lambda job: len(bench.jobs) > 5)
    assert not ended.over and stages(bench.folder) and not stages(bench.folder) & before


def test_of_a_judgement_that_is_in_the_tables_only_the_score_is_kept(bench: Bench) -> None:
    """A study of thousands of stages held all rows of all judgements, some 80 kB a stage."""
    study = make_study(curriculum__length=[1, 1])
    driver = bench.driver(study)
    work = bench.work(driver)

    def worker(job: Job) -> Record:
        record = work(job)
        for judged in record.judged:
            made = driver.store.judgement(judged.key)
            assert made is not None
            rows = [*({**made["rows"][0], "class": f"c{n}"} for n in range(50)), *made["rows"]]
            driver.store.write_judgement(
                judged.key, {"protocol": "linear", "rows": rows, "confusions": [], "seconds": 1}
            )
        return record

    run_inline(driver, worker)
    values = {n.key: n.value for n in driver.tree.nodes.values()}
    assert {len(v.judgement["rows"]) for each in driver.verdicts.values() for v in each if v.judgement} == {51}
    Recorder(driver, bench.folder / "out").write()
    assert {len(v.judgement["rows"]) for each in driver.verdicts.values() for v in each if v.judgement} == {1}
    for node in driver.tree.nodes.values():  # as when a fit is judged later
        driver._value(node)
    assert {n.key: n.value for n in driver.tree.nodes.values()} == values and None not in values.values()
    assert len(read(bench.folder / "out" / "tables" / "scores.arrow")) == 51 * len(values)
