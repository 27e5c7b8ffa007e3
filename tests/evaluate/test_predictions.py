"""Predictions of a classifier as a table, from which every score can be made again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from dermsearch.evaluate.base import compare
from dermsearch.evaluate.predictions import predictions

CLASSES = {"diagnosis": ("nevus", "melanoma", "other"), "veil": ("absent", "present")}


def made(cases: int = 40) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    truth = {label: rng.integers(0, len(names), cases) for label, names in CLASSES.items()}
    truth["veil"][:5] = -1
    said = {label: rng.dirichlet(np.ones(len(names)), cases) for label, names in CLASSES.items()}
    return truth, said, np.arange(cases) // 2


def test_a_row_is_a_case_and_a_class_and_an_unknown_truth_is_null() -> None:
    truth, said, groups = made()
    names = np.array([f"case {i}" for i in range(40)])
    table = predictions(truth, CLASSES, groups, said, names).to_pandas()
    assert len(table) == 40 * 5
    veil = table[table["label"] == "veil"]
    assert veil["truth"].isna().sum() == 10
    assert veil["class"].tolist()[:4] == ["absent", "present", "absent", "present"]
    assert veil["case"].tolist()[:3] == ["case 0", "case 0", "case 1"]
    assert veil["group"].tolist()[:6] == [0, 0, 0, 0, 1, 1]
    np.testing.assert_allclose(veil["probability"].to_numpy().reshape(-1, 2), said["veil"], rtol=1e-6)


def test_scores_can_be_made_again_from_predictions() -> None:
    truth, said, groups = made()
    judged = compare(truth, CLASSES, groups, said, "val", cases=np.arange(40).astype(str))
    assert judged.predictions is not None
    table = judged.predictions.to_pandas()
    for label in CLASSES:
        known = table[(table["label"] == label) & table["truth"].notna()]
        best = known.loc[known.groupby("case", observed=True)["probability"].idxmax()]
        again = balanced_accuracy_score(best["truth"].astype(str), best["class"].astype(str))
        (row,) = [r for r in judged.rows if (r["label"], r["metric"]) == (label, "balanced_accuracy")]
        assert again == pytest.approx(row["value"], abs=1e-9)


def test_cases_without_names_leave_no_predictions() -> None:
    truth, said, groups = made()
    assert compare(truth, CLASSES, groups, said, "val").predictions is None
