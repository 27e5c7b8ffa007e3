"""A study's own numbers: what the metrics write agrees, and what is changed afterwards is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.errors import UserError
from dermsearch.evaluate import compare
from dermsearch.results.papers.audit_scores import audit_alone
from dermsearch.results.papers.audit_text import scores_lines
from dermsearch.results.tables.schema import SCHEMAS, build, write

CASES = 60
Rows = list[dict[str, Any]]


def judged(stage: str, seed: int) -> tuple[Rows, Rows]:
    """The scores and confusions of one stage on the same cases, with predictions of its own."""
    truths, guesses = np.random.default_rng(0), np.random.default_rng(seed)
    truth = {label: truths.integers(0, len(classes), CASES) for label, classes in SEVEN_POINT.items()}
    predicted = {label: guesses.dirichlet(np.ones(len(classes)), CASES) for label, classes in SEVEN_POINT.items()}
    for classes in truth.values():
        classes[:3] = -1  # unknown
    said = compare(truth, SEVEN_POINT, np.arange(CASES), predicted, "val")
    of = {"stage": stage, "curriculum": "odc", "protocol": "knn", "seed": 0}
    return [of | row for row in said.rows], [of | cell for cell in said.confusions]


def study(folder: Path, *judgements: tuple[Rows, Rows]) -> str:
    scores, confusions = ([row for each in judgements for row in each[i]] for i in range(2))
    for name in SCHEMAS:
        rows = {"scores": scores, "confusions": confusions}.get(name, [])
        write(build(name, rows), folder / "tables" / f"{name}.arrow")
    return str(folder)


def test_what_the_metrics_write_agrees(tmp_path: Path) -> None:
    audit = audit_alone(study(tmp_path, judged("s1", 1), judged("s2", 2)))
    assert audit is not None and audit.consistent and not audit.unchecked
    classes = sum(map(len, SEVEN_POINT.values()))
    # For each stage: three rates and their cases of each class, two of each label, seven means, the cases' classes.
    assert audit.compared == 2 * (6 * classes + 4 * len(SEVEN_POINT) + 7 + classes)


CHANGES = [
    ("diagnosis", "MEL", "recall"),
    ("diagnosis", "MEL", "specificity"),
    ("streaks", "irregular", "precision"),
    ("streaks", "", "balanced_accuracy"),
    ("pigmentation", "", "macro_f1"),
    ("mean", "", "balanced_accuracy"),
    ("mean", "", "named_recall"),
    ("mean", "", "named_auc"),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_number_is_found(tmp_path: Path, change: tuple[str, str, str]) -> None:
    first = judged("s1", 1)
    (row,) = [r for r in first[0] if (r["label"], r["class"], r["metric"]) == change]
    row["value"] += 0.001
    audit = audit_alone(study(tmp_path, first))
    assert audit is not None and any(change[2] in wrong.what for wrong in audit.wrong)
    assert any("must be" in line and change[2] in line for line in scores_lines(audit))


def test_a_changed_cell_and_other_cases_are_found(tmp_path: Path) -> None:
    second = judged("s2", 2)
    cells = [c for c in second[1] if c["label"] == "streaks" and c["truth"] == "absent"]
    cells[0]["count"] += 1
    audit = audit_alone(study(tmp_path, judged("s1", 1), second))
    assert audit is not None
    found = {wrong.what.split(" (")[0] for wrong in audit.wrong}
    assert {"cases of absent", "balanced_accuracy", "cases behind the recall of absent"} <= found


def test_scores_without_cells_are_counted(tmp_path: Path) -> None:
    audit = audit_alone(study(tmp_path, (judged("s1", 1)[0], [])))
    assert audit is not None and audit.unchecked == len(SEVEN_POINT) and audit.compared == 7


def test_wrong_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a study"):
        audit_alone(str(tmp_path))
    with pytest.raises(UserError, match="no encoder has been scored yet"):
        audit_alone(study(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"--counts: .* holds its counts itself"):
        audit_alone(str(tmp_path), counts="x.csv")


def test_counted_predictions_must_be_of_the_same_cases(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    head = "row,label,true,predicted,count\n"
    good = "m,D,a,a,4\nm,D,a,b,3\nm,D,b,b,9\nn,D,a,a,7\nn,D,b,b,9\n"
    path.write_text(head + good)
    audit = audit_alone(str(path))
    assert audit is not None and audit.consistent and audit.compared == 4
    assert scores_lines(audit)[1].split() == ["m", "D_a", "57.1", "100.0", "100.0"]
    assert audit_alone("x" * 300) is None
    path.write_text(head + good.replace("n,D,a,a,7", "n,D,a,a,8"))
    audit = audit_alone(str(path))
    assert audit is not None and [(w.stored, w.expected) for w in audit.wrong] == [(8, 7)]
    path.write_text(head + "m,D,a,a,some\n")
    with pytest.raises(UserError, match="line 2, count: 'some' must be a whole number of cases"):
        audit_alone(str(path))
