"""One class as a clinician asks for it, against scikit-learn and by hand."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_search import make_study as study_of
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_auc_score, roc_curve

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.metrics import case_weights
from dermsearch.results import load
from dermsearch.results.board.clinical import (
    NAMES,
    bin_of,
    calibration,
    chosen,
    clinical,
    curve,
    numbers,
    render,
    sensitivity,
)
from dermsearch.results.pictures.reliability import reliability_figure
from dermsearch.results.tables.said import Answers
from dermsearch.results.tables.schema import build
from dermsearch.run.run import run_study
from dermsearch.work.samples import draw_samples, drawn

RNG = np.random.default_rng(0)


def answers(n: int = 300, share: float = 0.2, levels: int = 0) -> Answers:
    truth = (RNG.random(n) < share).astype(int)
    p = np.clip(0.2 + 0.3 * truth + 0.25 * RNG.normal(size=n), 0.001, 0.999)
    p = np.round(p * levels) / levels if levels else p
    truth[:5] = -1
    return Answers("d", ("benign", "malignant"), np.arange(n).astype(str), np.arange(n) // 2, truth, np.c_[1 - p, p])


@pytest.mark.parametrize("levels", [0, 7])
@pytest.mark.parametrize("specificity", [0.8, 0.9])
def test_sensitivity_is_that_of_the_roc(levels: int, specificity: float) -> None:
    a = answers(levels=levels)
    known = a.truth >= 0
    false, true, _ = roc_curve(a.truth[known], a.probabilities[known, 1], drop_intermediate=False)
    found = sensitivity(a.truth[known] == 1, a.probabilities[known, 1], np.ones((known.sum(), 1)), specificity)
    assert found == pytest.approx([true[false <= 1 - specificity + 1e-12].max()])


def test_numbers_on_the_cases_and_on_their_resamples() -> None:
    a = answers()
    known, weights = a.truth >= 0, case_weights(a.groups, 20)
    found = numbers(a, "malignant", weights)
    p, truth = a.probabilities[known, 1], a.truth[known]
    assert found["auc"][0] == pytest.approx(roc_auc_score(truth, p))
    assert found["accuracy"][0] == pytest.approx(((p > 0.5) == truth).mean())
    assert found["commonest"][0] == pytest.approx(max(truth.mean(), 1 - truth.mean()))
    drawn = np.repeat(np.arange(len(truth)), weights[known][:, 3].astype(int))
    assert found["auc"][3] == pytest.approx(roc_auc_score(truth[drawn], p[drawn]))
    assert found["accuracy"][3] == pytest.approx(((p > 0.5) == truth)[drawn].mean())


def test_calibration_by_hand() -> None:
    has, p = np.array([0, 1, 1, 0], bool), np.array([0.12, 0.18, 0.95, 0.99])
    gap = abs(0.12 + 0.18 - 1) + abs(0.95 + 0.99 - 1)
    assert calibration(has, p, np.ones((4, 1))) == pytest.approx([gap / 4])
    assert calibration(has, has.astype(float), np.ones((4, 1))) == pytest.approx([0])
    a = Answers("d", ("no", "yes"), np.array(list("abcd")), np.arange(4), has.astype(int), np.c_[1 - p, p])
    assert curve([a], "yes") == [(pytest.approx(0.15), 0.5, 2), (pytest.approx(0.97), 0.5, 2)]


def test_a_probability_in_single_precision_and_its_mean_are_in_one_bin() -> None:
    """Neighbours vote in tenths: 0.7 is 0.69999999 there, and was drawn over the bin below."""
    tenths = (np.arange(11) / 10).astype(np.float32)
    assert bin_of(tenths).tolist() == [*range(10), 9]
    p = np.repeat(tenths, 3)
    a = Answers("d", ("no", "yes"), np.arange(33), np.arange(33), np.arange(33) % 2, np.c_[1 - p, p])
    assert bin_of(np.array([x for x, _, _ in curve([a], "yes")])).tolist() == [*range(10)]


@pytest.mark.parametrize(
    ("classes", "asked", "found"),
    [
        (("no", "yes"), None, "yes"),
        (("BCC", "NEV", "MEL"), None, "MEL"),
        (("a", "b", "c"), "b", "b"),
        (("malignant", "benign"), None, "malignant"),
    ],
)
def test_the_class_in_question(classes: tuple[str, ...], asked: str | None, found: str) -> None:
    given = Answers("d", classes, np.array([]), np.array([]), np.array([]), np.zeros((0, len(classes))))
    assert chosen(given, asked) == found


@pytest.mark.parametrize(("asked", "said"), [("z", "has no class 'z'"), (None, "must be named, one of a, b, c")])
def test_a_class_that_is_not_there_is_refused(asked: str | None, said: str) -> None:
    given = Answers("d", ("a", "b", "c"), np.array([]), np.array([]), np.array([]), np.zeros((0, 3)))
    with pytest.raises(UserError, match=said):
        chosen(given, asked)


@pytest.mark.slow
def test_the_board_of_a_study(tmp_path: Path) -> None:
    study: Any = study_of(
        data={"cases": 80, "size": 32},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {"lr": {"choice": [0.01, 0.02]}}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"linear": {"c": 0.1}, "finetune": {"labelled": [3], "repeats": 2, "epochs": 1, "batch": 16}},
        objective={"protocol": "linear", "metric": "auc", "label": "diagnosis"},
        compute={"engine": "inline", "store": str(tmp_path / "store")},
        logging=[],
    )
    run_study(study, tmp_path / "out", None, Console(quiet=True))
    results = load(tmp_path / "out")
    for protocol in (None, "finetune:3"):
        board = clinical(results, protocol)
        assert (board.label, board.cls) == ("diagnosis", "MEL")
        assert {each.row.name for each in board.rows} == {"rotation", "no pre-training"}
        for each in board.rows:
            assert each.numbers.keys() == NAMES.keys()
            assert 0 <= each.numbers["at_90"][0] <= each.numbers["at_80"][0] <= 1

            assert sum(n for *_, n in each.curve) == board.cases * (2 if protocol else 1)
    console = Console(record=True, width=140)
    console.print(render(board, "x"))
    said = console.export_text()
    assert "% have it" in said and "80 % spec." in said
    assert "rotation: lr=0.01" in said and "rotation: lr=0.02" in said, "what has one name is told apart"
    paths = reliability_figure(board, tmp_path / "r", results.origin)
    assert [path.suffix for path in paths] == [".png", ".svg"] and "said probability of MEL" in paths[1].read_text()
    assert {"Rotation [lr=0.01]", "Rotation [lr=0.02]"} == set(
        re.findall(r">(Rotation .*?) \(error", paths[1].read_text())
    )

    def opened(name: str) -> CaseStore:
        assert name == "data"
        return open_cases(study.main, tmp_path / "store" / "data")

    with Image.open(draw_samples(results, opened, tmp_path / "samples.png", 5)) as sheet:
        assert sheet.size == (14 + 4 * 150, 28 + 14 + 2 * 182)
    asked = {**results.study, "objective": {**results.study["objective"], "label": "mean"}}
    with Image.open(draw_samples(replace(results, study=asked), opened, tmp_path / "mean.png", 5)) as by_mean:
        assert by_mean.size == sheet.size, "a mean chooses; its first label is shown"
    with pytest.raises(UserError, match=r"^--output: 'samples\.jpg' must end in \.png$"):
        draw_samples(results, opened, Path("samples.jpg"))
    other = open_cases(study.main.model_copy(update={"cases": 40}), tmp_path / "store" / "data")
    with pytest.raises(UserError, match=r"has no case 'C000.*'; it is not the store that was judged on"):
        draw_samples(results, lambda name: other, tmp_path / "samples.png", 12)


def test_a_sample_says_what_is_and_what_was_said(tmp_path: Path) -> None:
    """Green and + where that is the same, vermilion and x where not."""
    a = Answers("d", ("NEV", "MEL"), np.array(["x", "y"]), np.arange(2), np.array([0, 1]), np.array([[0.9, 0.1]] * 2))
    sheet = np.asarray(drawn(a, np.array([0, 1]), np.full((2, 32, 32, 3), 200, np.uint8), "title"))
    frames = [tuple(int(v) for v in sheet[28 + 14 + 1, 14 + i * 150 + 1]) for i in range(2)]
    assert frames == [(0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)]


def test_of_a_mean_over_judges_one_must_be_named(make_study: Any) -> None:
    objective = {"mean": ["knn", "linear"], "metric": "balanced_accuracy", "label": "diagnosis"}
    results = make_study(longest=1, study={"objective": objective})
    areas = [row | {"metric": "auc", "class": ""} for row in results.scores.to_pylist()]
    with pytest.raises(UserError, match=r"^--protocol: must be named, one of knn, linear$"):
        clinical(replace(results, tables=results.tables | {"scores": build("scores", areas)}))
