"""Which classes are made, what stands beside, and the same choice of real cases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dermsearch.data.prepare.version import cleared, version
from dermsearch.errors import UserError

CLASSES = {
    "finding": ("none", "pneumothorax", "pneumonia", "rare"),
    "pneumothorax": ("absent", "present"),
    "pneumonia": ("absent", "present"),
}
# finding, pneumothorax, pneumonia
TRUTH = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1], [2, 0, 1], [2, 1, 1], [-1, 1, -1]])


def store(truth: np.ndarray = TRUTH) -> Any:
    columns = dict(zip(CLASSES, truth.T, strict=True))
    rows = np.arange(len(truth))
    return SimpleNamespace(
        folder=Path("s"), classes=CLASSES, label=columns.__getitem__, split=lambda name: rows, settings={}
    )


@pytest.mark.parametrize(
    ("label", "classes", "others", "of"),
    [
        (None, [], "any", [0, 1, 1, 2, 2, -1]),
        (None, [], "absent", [0, 1, -1, 2, -1, -1]),
        ("finding", ["none", "pneumonia"], "any", [0, -1, -1, 1, 1, -1]),
        ("finding", ["pneumonia", "none"], "absent", [1, -1, -1, 0, -1, -1]),
        ("finding", ["none", "some=pneumothorax+pneumonia"], "any", [0, 1, 1, 1, 1, -1]),
        ("pneumothorax", [], "any", [0, 1, 1, 0, 1, 1]),
        ("pneumothorax", [], "absent", [0, 1, -1, -1, -1, -1]),  # the finding of that name may stay
    ],
)
def test_the_made_class_of_real_cases(label: str | None, classes: list[str], others: Any, of: list[int]) -> None:
    asked = version(store(), label, classes, others)
    assert asked.of(store(), np.arange(len(TRUTH))).tolist() == of and asked.own == bool(classes)


def test_what_is_asked_of_the_generator() -> None:
    rows = np.arange(len(TRUTH))
    classes, labels = version(store(), None, ["none", "some=pneumothorax+pneumonia"]).asked(store(), rows, 200, 0)
    assert np.bincount(classes).tolist() == [200, 200] and (labels[:200] == 0).all()
    assert {tuple(row) for row in labels[200:].tolist()} == {tuple(row) for row in TRUTH[1:5].tolist()}
    _, alone = version(store(), None, [], "absent").asked(store(), rows, 50, 0)
    assert {tuple(row) for row in alone.tolist()} == {(0, 0, 0), (1, 1, 0), (2, 0, 1)}
    again = version(store(), None, [], "absent").asked(store(), rows, 50, 0)[1]
    assert np.array_equal(alone, again)


def test_what_is_unknown_stays_so() -> None:
    assert cleared(TRUTH, store(), "pneumonia")[5].tolist() == [-1, 1, -1]


@pytest.mark.parametrize(
    ("label", "classes", "said"),
    [
        ("findings", [], r"^--label: the cases have no label 'findings'; did you mean 'finding'"),
        (None, ["none", "rare"], r"^--class: no training case has finding 'rare'"),
        (None, ["none", "pneumonja"], r"^--class: .*'pneumonja'; did you mean 'pneumonia'"),
        (None, ["none", "some=none+pneumonia"], r"^--class: each class may stand once"),
        (None, ["none"], r"^--class: name two or more"),
    ],
)
def test_what_cannot_be_asked_for(label: str | None, classes: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        version(store(), label, classes)


def test_a_label_that_no_training_case_knows() -> None:
    unknown = np.full_like(TRUTH, -1)
    with pytest.raises(UserError, match=r"^s: no training case has a known finding; name another --label"):
        version(store(unknown), None, [])
