"""A predictor that leaves: its labels, its card, what it says of files and stores, and what is no predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
import torch
from conftest_search import make_study
from PIL import Image
from rich.console import Console

from dermsearch.data.open import open_cases
from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.tables.said import Answers, parted
from dermsearch.run import predict as predicting
from dermsearch.run.export import CARD, CONFIG
from dermsearch.run.export_fit import cuts, export_fit
from dermsearch.run.predict import predict
from dermsearch.run.run import run_study

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(
        data={"cases": 60, "size": 32, "border": 0.05},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"finetune": {"epochs": 2, "batch": 16, "labelled": ["all", "2"]}},
        objective={"protocol": "finetune", "metric": "auc", "label": "mean", "labelled": "all"},
        compute={"engine": "inline", "store": str(folder / "store")},
        logging=[],
    )
    assert not run_study(study, folder / "out", None, QUIET).failed
    export_fit(folder / "out", folder / "model", "finetune", None, None, None)
    return folder


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision, as the study was judged in."""
    monkeypatch.setattr(predicting, "precision", lambda device: "fp32")


@pytest.mark.usefixtures("exact")
def test_a_store_gets_the_probabilities_that_were_judged(finished: Path, tmp_path: Path) -> None:
    cases = open_cases(make_study(data={"cases": 60, "size": 32}).main, finished / "store" / "data")
    count, bad = predict(finished / "model", [str(cases.folder)], tmp_path / "x.parquet", 7, 2, QUIET)
    rows = {row["image"]: row for row in pq.read_table(tmp_path / "x.parquet").to_pylist()}
    assert count == len(rows) and not bad
    best = next(row for row in leaderboard(load(finished / "out")) if row.length)
    table = load(finished / "out").predictions
    told = [each for each in parted(table.filter(pc.field("labelled") == "all")) if each.stage == best.keys[0]]
    answers = told[0].labels["diagnosis"]
    for case, said in zip(answers.cases, answers.probabilities, strict=True):
        found = [rows[case][f"diagnosis: {name}"] for name in answers.classes]
        np.testing.assert_allclose(found, said, atol=1e-5)
        assert rows[case]["diagnosis"] == answers.classes[int(np.argmax(found))]
        np.testing.assert_allclose(sum(found), 1, atol=1e-9)


def test_files_are_read_and_what_cannot_be_is_told(finished: Path, tmp_path: Path) -> None:
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a.jpg", (60, 50)), ("b.png", (40, 40))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(photos / name)
    (photos / "broken.jpg").write_bytes(b"no image")
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # views are then made by threads beside this one
    try:
        count, bad = predict(finished / "model", [str(photos)], tmp_path / "x.csv", 8, 2, QUIET)
    finally:
        torch.set_num_threads(before)
    rows = pcsv.read_csv(tmp_path / "x.csv").to_pylist()
    assert count == len(rows) == 2 and [Path(name).name for name, _ in bad] == ["broken.jpg"]
    assert {Path(row["image"]).name for row in rows} == {"a.jpg", "b.png"}
    about = json.loads((finished / "model" / CONFIG).read_text())
    for row in rows:
        for label, names in about["classes"].items():
            said = [row[f"{label}: {name}"] for name in names]
            assert row[label] == names[int(np.argmax(said))] and abs(sum(said) - 1) < 1e-6


@pytest.mark.usefixtures("exact")
def test_a_picture_is_the_same_in_a_file_and_in_a_store(finished: Path, tmp_path: Path) -> None:
    cases = open_cases(make_study(data={"cases": 60, "size": 32}).main, finished / "store" / "data")
    chosen = np.flatnonzero(cases.has("derm"))[:4]
    names = {str(tmp_path / f"{row}.png"): cases.strings("case")[row] for row in chosen}
    for path, row in zip(names, chosen, strict=True):
        Image.fromarray(cases.pictures("derm", np.array([row]))[0][0]).save(path)
    predict(finished / "model", [*names, str(cases.folder)], tmp_path / "x.parquet", 8, 1, QUIET)
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    rows = {each["image"]: [v for k, v in each.items() if ": " in k] for each in table}
    assert len({tuple(np.round(rows[path], 4)) for path in names}) == len(names), "they can be told apart"
    for path, case in names.items():
        np.testing.assert_allclose(rows[path], rows[case], atol=1e-5)


def test_the_card_and_what_validation_says(finished: Path) -> None:
    text, about = (finished / "model" / CARD).read_text(), json.loads((finished / "model" / CONFIG).read_text())
    told = ["# finetune", "from rotation", "* diagnosis: BCC, NEV, MEL, MISC, SK", "| finetune | validation | auc |"]
    told += ["calibration error", "Not for diagnosis", "labels: all, draw 0", "built-in skin cases"]
    assert [words for words in told if words not in text] == []
    assert "nan" not in text and "None" not in text
    found = about["validation"]["diagnosis"]
    assert found["class"] == "MEL" and 0 <= found["calibration_error"] <= 1
    assert all(0 <= each["from"] <= 1 for each in found["at_specificity"].values())


def test_the_few_labels_can_be_named(finished: Path, tmp_path: Path) -> None:
    export_fit(finished / "out", tmp_path / "few", "finetune:2", None, None, None)
    few, all_of = (json.loads((folder / CONFIG).read_text()) for folder in (tmp_path / "few", finished / "model"))
    assert few["dermsearch"]["predictor"] != all_of["dermsearch"]["predictor"]
    assert "from 2" in few["dermsearch"]["judge"] and "from 2" not in all_of["dermsearch"]["judge"]


def test_a_cut_leaves_so_many_others_out() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    p = np.clip(0.3 * truth + rng.uniform(0, 0.7, 400), 0, 1)
    answers = Answers("x", ("no", "yes"), truth, truth, truth, np.stack([1 - p, p], 1))
    for share, found in cuts(answers, "yes")["at_specificity"].items():
        wanted = float(share.rstrip("%")) / 100
        left_out = (p[truth == 0] < found["from"]).mean()
        assert wanted <= left_out < wanted + 0.02
        assert found["sensitivity"] == pytest.approx((p[truth == 1] >= found["from"]).mean())
    assert cuts(Answers("x", ("no", "yes"), truth, truth, 0 * truth, np.stack([1 - p, p], 1)), "yes") == {}


@pytest.mark.parametrize(
    ("model", "images", "out", "told"),
    [
        ("model", "nothing-*.jpg", "x.csv", "nothing matches it"),
        ("model", "bad.jpg", "x.csv", "nothing of"),
        ("model", "bad.jpg", "x.txt", "must end in .csv or .parquet"),
        ("out", "bad.jpg", "x.csv", "is no folder that `dermsearch export --fit` wrote"),
        ("encoder", "bad.jpg", "x.csv", "is an encoder, which names no classes"),
    ],
)
def test_what_is_wrong_is_said(model: str, images: str, out: str, told: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    (finished / "encoder").mkdir(exist_ok=True)
    about = json.loads((finished / "model" / CONFIG).read_text())
    (finished / "encoder" / CONFIG).write_text(json.dumps({k: v for k, v in about.items() if k != "predictor"}))
    with pytest.raises(UserError, match=told):
        predict(finished / model, [str(tmp_path / images)], tmp_path / out, 2, 1, QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jpg"]


@pytest.mark.parametrize("line", ["finetoon", "knn", "finetune@pad"])
def test_another_line_is_no_fit_of_it(line: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fit: "):
        export_fit(finished / "out", tmp_path / "x", line, None, None, None)
