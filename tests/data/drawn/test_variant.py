"""Drawn skin as other hospitals see it: told apart by simple numbers, and the usual cases are what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dermsearch.data.case import Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import SKIN_TYPES, synthetic
from dermsearch.data.mixed import both_in
from dermsearch.data.open import domain_of, drawn_for_training, open_cases, store_folder
from dermsearch.errors import UserError
from dermsearch.study.data import Data

CASES, SIDE, SEED = 60, 48, 3
CORNER = (slice(0, 6), slice(0, 6))


def data(variant: Any, **more: Any) -> Data:
    return Data.model_validate({"cases": CASES, "size": SIDE, "seed": SEED, "variant": variant, **more})


def drawn(variant: Any, cases: int = CASES, size: int | None = SIDE) -> list[Case]:
    return list(domain_of(data(variant)).draw(cases, size, SEED))


def pictures(cases: list[Case], modality: str = "clinic") -> np.ndarray:
    return np.stack([case.images[modality] for case in cases]).astype(float)


def edges(images: np.ndarray) -> float:
    """How much neighbours differ: sharpness."""
    return float(np.abs(np.diff(images, axis=2)).mean())


@pytest.fixture(scope="module")
def usual() -> list[Case]:
    return list(synthetic(CASES, SIDE, SEED))


@pytest.mark.parametrize("variant", [None, {}, {"camera": {}}, {"camera": {"blur": 0.0}}])
def test_nothing_said_is_nothing_changed(variant: Any, usual: list[Case], tmp_path: Path) -> None:
    for one, two in zip(usual, drawn(variant), strict=True):
        assert all((one.images[name] == two.images[name]).all() for name in one.images)
        assert (one.labels, one.metadata, one.patient) == (two.labels, two.metadata, two.patient)
    assert store_folder(data(variant), tmp_path) == store_folder(data(None), tmp_path)
    name = store_folder(data(variant), tmp_path).name
    assert name == "synthetic-60x48-b6123648acb1", "stores that were drawn before are found again"


@pytest.mark.parametrize("modality", ["derm", "clinic"])
def test_a_cast_and_nothing_else(modality: str, usual: list[Case]) -> None:
    ours = drawn({"camera": {"cast": [0.9, 1.0, 0.6]}})
    before, after = (pictures(cases, modality).mean(axis=(0, 1, 2)) for cases in (usual, ours))
    assert after / before == pytest.approx([0.9, 1.0, 0.6], abs=0.01)
    assert [c.labels for c in ours] == [c.labels for c in usual] and [c.patient for c in ours][-1] != "P00000"
    assert all((a.mask == b.mask).all() for a, b in zip(ours, usual, strict=True))


def test_a_vignette_darkens_corners_alone(usual: list[Case]) -> None:
    before, after = pictures(usual), pictures(drawn({"camera": {"vignette": 0.5}}))
    assert after[:, *CORNER].mean() / before[:, *CORNER].mean() == pytest.approx(0.6, abs=0.03)
    middle = slice(SIDE // 2 - 2, SIDE // 2 + 2)
    assert after[:, middle, middle].mean() / before[:, middle, middle].mean() == pytest.approx(1, abs=0.01)


def test_blur_and_few_pixels_take_edges_away(usual: list[Case]) -> None:
    sharp = edges(pictures(usual))
    soft, coarse = (edges(pictures(drawn({"camera": each}))) for each in ({"blur": 0.03}, {"pixels": 16}))
    assert soft < 0.7 * sharp and coarse < 0.7 * sharp
    assert edges(pictures(drawn({"camera": {"pixels": 512}}))) == sharp, "a camera does not see more than there is"


def test_skin_types_come_as_often_as_asked() -> None:
    weights = [0, 0, 1, 1, 0, 2]
    types = [case.metadata["skin_type"] for case in drawn({"skin": weights}, 1000, None)]
    known = np.array([each for each in types if each is not None], int)
    assert np.bincount(known, minlength=7)[1:] / len(known) == pytest.approx([0, 0, 0.25, 0.25, 0, 0.5], abs=0.05)
    usual = [case.metadata["skin_type"] for case in drawn(None, 1000, None)]
    asked = np.bincount([int(each) for each in usual if each is not None], minlength=7)[1:]
    assert asked / asked.sum() == pytest.approx(SKIN_TYPES, abs=0.05)
    dark, light = (pictures(drawn({"skin": each}))[:, *CORNER].mean() for each in ([0, 0, 0, 0, 0, 1], [1, *[0] * 5]))
    assert dark < 0.6 * light


def test_diagnoses_that_are_not_named_are_no_classes(tmp_path: Path) -> None:
    variant = {"classes": {"SK": 1, "NEV": 3, "MISC": 0}}
    domain = domain_of(data(variant))
    assert domain.labels["diagnosis"] == ("NEV", "SK"), "in the domain's order"
    assert [*domain.labels] == [*SEVEN_POINT] and domain.labels["streaks"] == SEVEN_POINT["streaks"]
    found = np.array([case.labels["diagnosis"] for case in drawn(variant, 1000, None)])
    assert np.bincount(found) / len(found) == pytest.approx([0.75, 0.25], abs=0.04)
    store = open_cases(data(variant), tmp_path)
    assert store.classes["diagnosis"] == ("NEV", "SK") and set(store.label("diagnosis")) == {0, 1}
    assert store.settings["variant"] == {"classes": {"SK": 1, "NEV": 3, "MISC": 0}}
    assert len(store.split("train")) == drawn_for_training(data(variant))


def test_every_setting_has_a_store_of_its_own(tmp_path: Path) -> None:
    told = [None, {"skin": [1] * 6}, {"classes": {"MEL": 1, "NEV": 1}}, *({"camera": c} for c in CAMERAS)]
    assert len({store_folder(data(each), tmp_path) for each in told}) == len(told)


CAMERAS: list[dict[str, Any]] = [{"cast": [1, 1, 0.9]}, {"vignette": 0.1}, {"blur": 0.01}, {"pixels": 20}]


@pytest.mark.parametrize(
    ("camera", "share"),
    [({"cast": [1.05, 1.0, 0.86]}, 1), ({"blur": 0.008, "pixels": 40}, 1), ({"vignette": 0.45}, 0)],
)
def test_the_same_lesions_under_another_camera_are_known_again(camera: Any, share: int, tmp_path: Path) -> None:
    """But for a dark edge, which looks do not see past."""
    less = {"cases": 40, "size": 64}
    usual, theirs = (open_cases(data(each, **less), tmp_path) for each in (None, {"camera": camera}))
    found = both_in(usual, theirs)
    assert len(found) == share * 2 * 40
    assert all(why.endswith(f":{name}") for name, why in found.items()), "as themselves"
    others = open_cases(data({"camera": camera}, seed=9, **less), tmp_path)
    assert not both_in(usual, others)


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (
            {"classes": {"NEVUS": 1, "MEL": 1}},
            "data.variant.classes: 'NEVUS' is no diagnosis of built-in cases; did",
        ),
        ({"classes": {"MEL": 1, "NEV": 0}}, "classes: must give two diagnoses or more a weight above 0"),
        ({"skin": [0] * 6}, "skin: must give some skin type a weight above 0"),
        ({"skin": [1, 2]}, "at least 6 items"),
        ({"camera": {"pixels": 4}}, "greater than or equal to 8"),
        ({"camera": {"zoom": 2}}, "Extra inputs are not permitted"),
    ],
)
def test_what_no_variant_is(variant: Any, said: str) -> None:
    with pytest.raises((UserError, ValidationError), match=said):
        domain_of(data(variant))


def test_a_domain_that_draws_by_name_alone() -> None:
    with pytest.raises(UserError, match=r"^data\.variant: domain 'chest' has variants by name alone \(a, b, "):
        domain_of(data({"skin": [1] * 6}, domain="chest", modalities=["xray"]))
