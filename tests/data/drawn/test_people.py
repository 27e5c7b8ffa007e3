"""Drawn patients with several lesions: their tables follow what is drawn, and holes are where they are said to be."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from dermsearch.data import open as opening
from dermsearch.data.case import Case
from dermsearch.data.domain import SKIN
from dermsearch.data.drawn.people import MEASURED, lacking, people
from dermsearch.data.drawn.skin import draw_labels
from dermsearch.data.open import drawn_for_training, open_cases, store_folder
from dermsearch.errors import UserError
from dermsearch.study.data import Data, People

CASES = 700
assert SKIN.tabled is not None
COLUMNS = {column.name: column for column in SKIN.tabled.columns}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(people(CASES, 32, seed=0))


def told(cases: list[Case], name: str) -> np.ndarray:
    return np.array([np.nan if (v := case.metadata[name]) is None else v for case in cases], float)


def related(one: np.ndarray, other: np.ndarray) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[known], other[known])[0, 1])


def test_a_patient_has_1_to_12_lesions(cases: list[Case]) -> None:
    owned = defaultdict(list)
    for case in cases:
        owned[case.patient].append(case)
    counts = [len(own) for own in owned.values()][:-1]  # the last one is cut short
    assert {min(counts), max(counts)} == {1, 12} and 3 < np.mean(counts) < 6
    assert len({case.lesion for case in cases}) == CASES
    for count, own in zip(counts, owned.values(), strict=False):
        assert {case.metadata["lesions"] for case in own} in ({float(count)}, {None})
    for name, column in COLUMNS.items():
        if column.level == "patient":
            assert all(len({case.metadata[name] for case in own}) == 1 for own in owned.values()), name
    assert max(len(own) for own in owned.values()) <= 12
    assert max(np.unique([c.patient for c in people(200, None, 0, lesions=3)], return_counts=True)[1]) == 3


def test_a_case_is_the_same_in_any_number_with_and_without_its_images_at_any_size(cases: list[Case]) -> None:
    for one, bare, large in zip(cases[:9], people(9, None, 0), people(9, 48, 0), strict=True):
        for part in ("case", "patient", "labels"):
            assert getattr(one, part) == getattr(bare, part) == getattr(large, part)
        assert one.metadata == large.metadata and one.metadata.keys() == bare.metadata.keys()
        assert all(bare.metadata[name] is None for name in MEASURED) and not bare.images
    assert next(people(3, 32, 1)).metadata != cases[0].metadata


def test_the_table_of_a_lesion_is_that_of_its_picture(cases: list[Case]) -> None:
    pixels = [(case.images["derm"].astype(float), case.mask > 0) for case in cases if case.mask is not None]
    area = np.array([mask.mean() for _, mask in pixels])
    mean = np.array([image[mask].mean(axis=0) for image, mask in pixels])
    assert related(told(cases, "diameter"), np.sqrt(area)) > 0.85
    assert related(told(cases, "brightness"), mean.mean(axis=1)) > 0.7
    assert related(told(cases, "redness"), (mean[:, 0] - mean[:, 1]) / mean.sum(axis=1)) > 0.7
    spread = [np.linalg.eigvalsh(np.cov(np.argwhere(mask).T)) for _, mask in pixels]
    assert related(told(cases, "elongation"), np.array([np.sqrt(b / a) for a, b in spread])) > 0.9
    by_colour = {c: mean[[case.metadata["colour"] == c for case in cases]].mean(axis=0) for c in ("tan", "blue-grey")}
    assert by_colour["tan"][0] - by_colour["tan"][2] > by_colour["blue-grey"][0] - by_colour["blue-grey"][2] + 20
    assert 0 <= np.nanmin(told(cases, "border")) < np.nanmax(told(cases, "border")) < 0.5


def test_the_table_of_a_person_is_that_of_the_skin_and_of_all_lesions(cases: list[Case]) -> None:
    around = [case.images["clinic"][case.images["clinic"].mean(axis=2) > 20] for case in cases]
    assert related(told(cases, "skin_type"), np.array([np.median(a) for a in around])) < -0.6
    assert related(told(cases, "lesions"), told(cases, "diameter")) < -0.2
    pictures = [case.images["clinic"].astype(float) + 1 for case in cases]
    tint, site = np.array([np.median(p[..., 0] / p[..., 2]) for p in pictures]), [c.metadata["site"] for c in cases]
    red = {s: tint[[s == other for other in site]].mean() for s in ("upper limbs", "abdomen")}
    assert red["upper limbs"] > red["abdomen"]  # whose skin is tanned


def holes(by_class: bool, cases: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Which values lack, (cases, columns), and the diagnoses; a patient has four lesions here."""
    truth = np.array([draw_labels(0, index)["diagnosis"] for index in range(cases)])
    lack = [lacking(0, index, index - index % 4, truth[index] if by_class else None) for index in range(cases)]
    return np.array([[name in each for name in COLUMNS] for each in lack], float), truth


def by_holes(found: np.ndarray, truth: np.ndarray) -> float:
    """Balanced accuracy of the diagnosis on other patients, from the holes of the tables alone."""
    half = len(truth) // 2
    model = LogisticRegression(class_weight="balanced").fit(found[:half], truth[:half])
    return float(balanced_accuracy_score(truth[half:], model.predict(found[half:])))


def test_holes_tell_the_class_where_they_are_made_by_it_and_only_there(cases: list[Case]) -> None:
    chance, by_class = holes(False), holes(True)
    assert by_holes(*chance) < 0.27 and by_holes(*by_class) > 0.6
    found = chance[0]
    assert (found.mean(axis=0) > 0.08).all() and (found.mean(axis=0) < 0.25).all()
    lesion = np.array([column.level == "lesion" for column in COLUMNS.values()])
    assert found[:, lesion].all(axis=1).mean() > 0.02 and found[:, ~lesion].all(axis=1).mean() > 0.01  # nothing known
    for drawn, told in ((cases, None), (list(people(40, 32, 0, by_class=True)), "class")):
        for index, case in enumerate(drawn):
            first = next(i for i, other in enumerate(drawn) if other.patient == case.patient)
            why = None if told is None else case.labels["diagnosis"]
            assert {n for n, v in case.metadata.items() if v is None} == set(lacking(0, index, first, why))


def test_a_study_asks_for_them_and_other_built_in_stores_stay_what_they_were(tmp_path: Path) -> None:
    usual, asked = Data(cases=40, size=32), Data(cases=40, size=32, drawn=People(lesions=5))
    assert store_folder(usual, tmp_path).name == "synthetic-40x32-d245577ed4cb"
    assert len({store_folder(d, tmp_path) for d in (usual, asked, Data(cases=40, size=32, drawn=People()))}) == 3
    store = open_cases(asked, tmp_path)
    assert {name: (c.kind, c.level) for name, c in store.columns.items()} == {
        name: (c.kind, c.level) for name, c in COLUMNS.items()
    }
    assert len(store.split("train")) == drawn_for_training(asked)
    assert open_cases(usual, tmp_path).fingerprint == "5509b95909e28b3e5876e8423e8ffba8"
    assert set(store.table(["colour", "lesions"], store.split("val")).columns[0].vocabulary) <= {
        *("tan", "brown", "reddish", "greyish", "blue-grey")
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "store", "path": "x", "drawn": {}}, "drawn: goes with source 'synthetic' only, not with 'store'"),
        ({"drawn": {"lesions": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_asked_for(data: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data.model_validate(data)


def test_a_domain_that_draws_none_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening.DOMAINS, "find", lambda name: replace(SKIN, name="eye", tabled=None))
    with pytest.raises(UserError, match=r"^data.drawn: domain 'eye' draws no patients with several lesions$"):
        store_folder(Data(domain="eye", drawn=People()), tmp_path)
