"""An objective that is the mean over several judges: on data sets of their own, from as many draws of labels."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc
import pytest
from conftest_search import make_study
from pydantic import ValidationError
from rich.console import Console

from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard, render
from dermsearch.results.tables.measure import MEAN, Score, choose
from dermsearch.run.run import run_study
from dermsearch.study.config import Study

LINES = ["linear@a", "knn@b"]
RAW: dict[str, Any] = {
    "data": {"a": {"cases": 60, "size": 32}, "b": {"cases": 50, "size": 32, "seed": 3}},
    "encoder": {"name": "test_resnet"},
    "curriculum": {"tasks": {"rotation": {}, "relative_location": {}}, "length": [1, 1]},
    "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
    "downstream": {"linear@a": {"c": 0.1, "labelled": [4], "repeats": 2}, "knn@b": {"k": 5}},
    "objective": {"mean": LINES, "metric": "auc", "label": "mean"},
    "logging": [],
}


def score(value: float, below: float | None = 0.03, groups: str = "patients", draws: int = 1) -> Score:
    return Score("s", "odc", "", 0, 10, (value,) * draws, below, 0.04, groups)


def test_what_judges_are_unsure_of_is_their_own() -> None:
    found = Score.mean([score(0.6), score(0.8, below=0.04)])
    assert found.value == pytest.approx(0.7) and found.n == 20 and found.groups == "patients"
    assert found.below == pytest.approx(0.05 / 2) and found.above == pytest.approx(0.04 * math.sqrt(2) / 2)
    assert Score.mean([score(0.6), score(0.8, below=None)]).below is None
    assert Score.mean([score(0.6), score(0.8, groups="images")]).groups == ""
    assert len(Score.mean([score(0.6, draws=3), score(0.8, draws=3)]).values) == 3
    assert len(Score.mean([score(0.6, draws=3), score(0.8)]).values) == 1


@pytest.mark.slow
def test_the_search_and_the_leaderboard_go_by_the_mean(tmp_path: Path) -> None:
    study = make_study(**RAW, compute={"engine": "inline", "store": str(tmp_path / "store")})
    run_study(study, tmp_path / "out", None, Console(quiet=True))
    results = load(tmp_path / "out")
    rows = leaderboard(results)
    assert {row.measure.protocol for row in rows} == {MEAN} and len(rows) == 3
    trials = results.trials.to_pydict()
    of = dict(zip(trials["curriculum"], trials["value"], strict=True))
    boards = [leaderboard(results, name, "auc", "mean") for name in LINES]
    for row in rows:
        single = [next(r.score for r in board if r.name == row.name) for board in boards]
        assert row.score == pytest.approx(fmean(filter(None, single)))
        assert row.low is not None and row.high is not None and row.low < row.score < row.high
        assert not row.length or of[row.name] == pytest.approx(row.score)
    console = Console(record=True, width=110)
    console.print(render(rows, "x", results))
    assert "protocol mean of linear@a:4, knn@b" in console.export_text()
    results.tables["scores"] = results.scores.filter(pc.field("protocol") != "knn")
    with pytest.raises(UserError, match="knn"):
        choose(results)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"mean": ["linear@a", "knn"]}, "objective.mean: must be one of downstream"),
        ({"mean": ["linear@a", "linear@a"]}, "must name each line of downstream once"),
        ({"mean": ["linear@a"]}, "at least 2"),
        ({"mean": LINES, "labelled": 5}, "must be one of 4, not 5, for 'linear@a'"),
    ],
)
def test_a_mean_of_what_is_not_there_is_refused(objective: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_study(**{**RAW, "objective": objective})
    assert Study.model_validate(make_study(**RAW).model_dump(mode="json")) == make_study(**RAW)
