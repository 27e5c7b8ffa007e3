"""`dermsearch test`: the test split is opened for what validation chose, and every opening is counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import warm
from e2e.tiny import TWO_TASKS, run

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard

FINETUNE = "downstream.finetune={labelled: [5], repeats: 2, epochs: 1, batch: 16}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a study has run that is judged by evaluators and by a fit from two draws of few labels."""
    folder = tmp_path_factory.mktemp("opening")
    run(folder, *TWO_TASKS, "compute.engine=inline", FINETUNE, "search.seeds=[0,1]")
    return folder


def opened(folder: Path, *arguments: str, code: int = 0) -> str:
    done = warm.run(["test", str(folder / "out"), *arguments], folder)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_best_the_best_single_task_and_none_are_tested_once_and_it_says_how_often(folder: Path) -> None:
    before = load(folder / "out")
    assert not len(before.tests)
    said = opened(folder)
    assert "Opening 1 of this test split" in said and "was opened once" in said
    tests, rows = load(folder / "out").pandas("tests"), leaderboard(before)
    best = next(row for row in rows if row.length)
    single = next(row for row in rows if row.length == 1)
    assert (tests[tests["class"] == ""].ci_high < 1).any() and "[0.0, 100.0]" not in said
    assert set(tests.stage) == {*best.keys, *single.keys, *next(r for r in rows if not r.length).keys}
    assert set(tests.split) == {"test"} and set(tests.protocol) == {"knn", "linear", "finetune"}
    assert set(tests.rule[tests.stage.isin(best.keys)]) == {"best on validation"}
    assert set(tests.draw[tests.protocol == "finetune"]) == {0, 1} and set(tests.seed) == {0, 1}
    kept = load(folder / "out").pandas("test_predictions")
    assert set(kept.split) == {"test"} and set(kept.protocol) == {"knn", "linear", "finetune"}
    told = load(folder / "out")
    assert told.scores.equals(before.scores), "nothing of validation has changed"
    again = opened(folder, "--curriculum", "odc")
    assert "Opening 2 of this test split" in again and "was opened 2 times" in again and "no longer blind" in again
    assert set(load(folder / "out").pandas("tests").opening) == {1, 2}
    kept = load(folder / "out").pandas("test_predictions")
    whose = ["stage", "protocol", "data", "labelled", "draw", "label", "case", "class"]
    assert not kept.duplicated(whose).any() and set(kept.stage) == set(load(folder / "out").pandas("tests").stage)
    shutil.rmtree(folder / "store" / "openings")  # a stage store that is made anew; the tables still know
    assert "Opening 3 of this test split" in opened(folder)


def test_the_leaderboard_shows_validation_and_test_apart(folder: Path) -> None:
    if not len(load(folder / "out").tests):
        opened(folder)
    shown = warm.run(["leaderboard", str(folder / "out"), "--protocol", "finetune"], folder).stdout
    assert "split val" in shown and "On the test split" in shown and "By luck, the best of 4 is" in shown


def test_a_store_without_the_stages_and_a_wrong_name_are_one_sentence(folder: Path) -> None:
    assert "--curriculum: 'odk' has no score on validation; did you mean 'odc'?" in opened(
        folder, "--curriculum", "odk", code=2
    )
    assert "is not a stage store" in opened(folder, "--store", str(folder), code=2)
