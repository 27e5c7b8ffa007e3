"""Accuracy and gains over the baseline are made from predictions, on resamples that all share."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.data.domain import SEVEN_POINT, SKIN
from dermsearch.evaluate import compare
from dermsearch.results import load
from dermsearch.results.papers.files import markdown
from dermsearch.results.papers.picture import picture
from dermsearch.results.papers.predicted import Predictions, Quantity
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import Filled, fill
from dermsearch.results.tables.schema import SCHEMAS, Results, build, write
from dermsearch.results.tables.writer import joined

CASES = 60
SKILLS = {("baseline", "own"): 1.0, ("hccnn", "own"): 2.0, ("giin", "own"): 1.0, ("baseline", "common"): 0.5,
          ("hccnn", "common"): 0.5, ("majority", "own"): 0.0}  # fmt: skip


def judgement(skill: float, seed: int):
    """What somebody of that skill says of cases that are hard or easy for everybody."""
    shared, own = np.random.default_rng(0), np.random.default_rng([seed, int(10 * skill)])
    truth, told = {}, {}
    for label, classes in SEVEN_POINT.items():
        truth[label] = shared.integers(0, len(classes), CASES)
        hard = shared.normal(size=(CASES, len(classes)))
        x = skill * np.eye(len(classes))[truth[label]] + hard + 0.3 * own.normal(size=hard.shape)
        told[label] = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    groups, names = np.arange(CASES) // 2, np.array([f"c{i}" for i in range(CASES)])
    return truth, told, compare(truth, SEVEN_POINT, groups, told, "val", SKIN.named, names)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """A study that judged its root by systems, on two data sets, with three seeds."""
    folder: Path = tmp_path_factory.mktemp("study")
    scores, said = [], []
    for (protocol, data), skill in SKILLS.items():
        for seed in range(3):
            own = {"stage": f"root-{seed}", "curriculum": ROOT_CURRICULUM, "root": "", "seed": seed,
                   "protocol": protocol, "data": data, "labelled": "all", "draw": 0, "split": "val"}  # fmt: skip
            _, _, made = judgement(skill, seed)
            scores += [own | row for row in made.rows]
            said.append((own, made.predictions))
    for name in SCHEMAS:
        table = joined(name, said) if name == "predictions" else build(name, scores if name == "scores" else [])
        write(table, folder / "tables" / f"{name}.arrow")
    objective = {"protocol": "baseline", "metric": "named_auc", "label": "mean"}
    study = {"name": "systems", "objective": objective, "data": {"own": {"size": 64}, "common": {"size": 64}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return load(folder)


@pytest.fixture(scope="module")
def table(results: Results) -> Filled:
    return fill(results, FORMS["sm3_table1"])


def test_accuracy_is_the_share_of_right_classes(results):
    scores = Predictions(results, "all").scores("hccnn", "own", "val", Quantity("accuracy", SKIN.named))
    truth, told, _ = judgement(2.0, 1)
    each = [float((told[label].argmax(1) == truth[label]).mean()) for label in SEVEN_POINT]
    score = scores["root-1"]
    assert score.value == pytest.approx(np.mean(each), abs=1e-6) and score.n == CASES
    assert 0.01 < score.below < 0.2 and 0.01 < score.above < 0.2


def cells(table: Filled, section: str, title: str) -> dict[str, object]:
    entries = next(entries for form, entries in table.blocks if form.title == section)
    entry = next(entry for entry in entries if entry.title == title)
    return {cell.column.heading: cell.value for cell in entry.cells}


def test_the_gain_over_the_baseline_is_that_of_the_scores(table):
    gain = cells(table, "AUC above the baseline", "HcCNN (D)")
    ours, theirs = (cells(table, "AUC", title) for title in ("HcCNN (D)", "baseline (A)"))
    for label in ("BWV", "DIAG", "AVG"):
        assert gain[label].mean == pytest.approx(ours[label].mean - theirs[label].mean, abs=0.02)
    assert gain["AVG"].low > 0 and gain["AVG"].seeds == 3
    width = (ours["AVG"].high - ours["AVG"].low) + (theirs["AVG"].high - theirs["AVG"].low)
    assert gain["AVG"].high - gain["AVG"].low < 0.8 * width, "pairing takes out what makes cases hard"


def test_the_baseline_has_no_gain_and_an_equal_one_is_not_told_apart(table):
    assert set(cells(table, "AUC above the baseline", "GIIN (E)").values()) != {None}
    equal = cells(table, "AUC above the baseline", "GIIN (E)")["AVG"]
    assert equal.low <= 0 <= equal.high and equal.mean == pytest.approx(0)
    entries = next(e for f, e in table.blocks if f.title == "AUC above the baseline")
    assert not any(entry.title.startswith("baseline") for entry in entries)


def test_the_common_recipe_has_rows_of_its_own(table):
    common = cells(table, "AUC", "HcCNN, common recipe (D)")["AVG"].mean
    assert common < cells(table, "AUC", "HcCNN (D)")["AVG"].mean - 5
    gain = cells(table, "AUC above the baseline", "HcCNN, common recipe (D)")["AVG"]
    assert gain.mean == pytest.approx(common - cells(table, "AUC", "baseline, common recipe (A)")["AVG"].mean, abs=0.02)


def test_accuracy_and_balanced_accuracy_stand_beside(table):
    assert cells(table, "Balanced accuracy", "HcCNN (D)")["AVG"].mean > 50
    majority = cells(table, "Accuracy", "majority class")["DIAG"]
    truth, _, _ = judgement(0.0, 0)
    assert majority.mean == pytest.approx(
        100 * np.mean([(judgement(0.0, s)[1]["diagnosis"].argmax(1) == truth["diagnosis"]).mean() for s in range(3)])
    )  # fmt: skip


def test_the_table_is_written_and_drawn(table, tmp_path):
    text = markdown(table)
    assert "**AUC above the baseline**" in text and "HcCNN (D)" in text
    for path in picture(table, tmp_path / "table"):
        assert path.stat().st_size > 10_000


def test_a_study_of_other_labels_and_classes_has_no_number_there(results):
    """A paper's table may be named in a study of one of its labels, whose classes are spelt in another way."""
    said, known = Predictions(results, "all"), {"diagnosis": "MEL"}
    for metric in ("accuracy", "auc_gain"):
        found = said.scores("baseline", "own", "val", Quantity(metric, {"melanoma": "MEL"} | known))
        assert found == said.scores("baseline", "own", "val", Quantity(metric, known)) != {}
        assert Predictions(results, "all").scores("baseline", "own", "val", Quantity(metric, {"melanoma": "MEL"})) == {}
    assert said.scores("baseline", "own", "val", Quantity("auc_gain", {"streaks": "melanoma"})) == {}
