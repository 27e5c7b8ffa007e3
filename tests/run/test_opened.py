"""Openings of test splits: of the data sets alone that are judged on, and none is forgotten."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.results import Results, load
from dermsearch.run import opening
from dermsearch.run.opening import open_test
from dermsearch.run.run import run_study
from dermsearch.storage.stages import StageStore
from dermsearch.work.job import Job
from dermsearch.work.record import Record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a study of two data sets has run that judges on the second one alone."""
    folder, data = tmp_path_factory.mktemp("opened"), {"cases": 60, "size": 32}
    told: dict[str, Any] = {
        "data": {"trained": data, "ham": {**data, "seed": 1}},
        "encoder": {"name": "test_resnet"},
        "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]},
        "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
        "downstream": {"knn@ham": {"k": 5}},
        "objective": {"protocol": "knn@ham", "metric": "auc", "label": "mean"},
        "compute": {"engine": "inline", "store": str(folder / "store")},
        "logging": [],
    }
    run_study(make_study(**told), folder / "out", None, Console(quiet=True))
    return folder


def test_what_nobody_judges_on_is_not_opened_and_what_another_saw_meanwhile_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = load(folder / "out").scores["stores"][0].as_py()
    trained, ham = (each.split(" ")[1] for each in stores.split("; "))
    StageStore(str(folder / "store")).note_opening(trained, {})  # by another study
    others, work = list[int](), opening.run_job

    def slow(job: Job) -> Record:
        if not others:
            others.append(0)
            others[0] = open_test(folder / "out", [], None, lambda said: None).number
        return work(job)

    monkeypatch.setattr(opening, "run_job", slow)
    mine = open_test(folder / "out", [], None, lambda said: None)
    assert (mine.number, others) == (1, [2])
    store = StageStore(str(folder / "store"))
    assert (store.openings(trained), store.openings(ham)) == (1, 2)
    assert set(load(folder / "out").pandas("tests").opening) == {1, 2}


def test_of_two_that_write_at_once_none_is_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not len(load(folder / "out").tests):
        open_test(folder / "out", [], None, lambda said: None)
    rows = load(folder / "out").tests.to_pylist()[:1]

    def slowly(where: Path) -> Results:
        found = load(where)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(opening, "load", slowly)
    with ThreadPoolExecutor(3) as others:
        for done in [others.submit(opening.keep, folder / "out", [{**rows[0], "opening": n}], []) for n in (7, 8, 9)]:
            done.result()
    assert {7, 8, 9} < set(load(folder / "out").pandas("tests").opening)
