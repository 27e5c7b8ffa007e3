"""A judge that does not fit the encoders or the labels is refused by its field, before anything is drawn or trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.check import check, check_alike, check_label, check_whole

SETS: dict[str, Any] = {"own": {"cases": 80, "size": 32}, "other": {"cases": 60, "size": 32, "seed": 1}}


@dataclass
class Cases:
    """What these checks ask of a store: classes by label, and which of four cases have which images."""

    classes: dict[str, tuple[str, ...]]
    images: dict[str, list[bool]] = field(default_factory=lambda: {"derm": [True] * 4})
    folder: str = "stores/other"

    @property
    def domain(self) -> Any:
        return SimpleNamespace(named={"diagnosis": "MEL"})

    def split(self, name: str) -> np.ndarray:
        return np.arange(2) + 2 * (name == "val")

    def has(self, modality: str) -> np.ndarray:
        return np.array(self.images[modality])


def study(judge: str = "linear@other", objective: dict[str, Any] | None = None, **other: Any) -> Any:
    return make_study(
        data={**SETS, "other": {**SETS["other"], **other}},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        downstream={judge: {}},
        objective={"protocol": judge, "label": "mean", **(objective or {})},
    )


def refused(look: Any, *given: Any) -> str:
    with pytest.raises(UserError) as told:
        look(*given)
    return str(told.value)


def test_a_modality_that_the_encoders_lack() -> None:
    check(study())
    told = refused(check, study(modalities=["derm", "clinic"]))
    assert told == "data.other.modalities: the encoders see derm images only, not clinic"


def test_a_modality_that_no_domain_has() -> None:
    told = refused(check, study(modalities=["dermo"]))
    assert told.startswith("data.other.modalities: must be of ") and "did you mean 'derm'?" in told


def test_a_statistic_of_another_domain() -> None:
    told = refused(check, study(normalise="chestnut"))
    assert told.startswith("data.other.normalise: must be one of ") and told.endswith(", not 'chestnut'")


def test_an_objective_of_a_label_that_the_cases_lack() -> None:
    cases = Cases({"diagnosis": ("NEV", "MEL"), "pigment": ("absent", "typical")})
    check_label(study(objective={"label": "diagnosis", "metric": "named_auc"}), cases)
    told = refused(check_label, study(objective={"label": "diagnossis"}), cases)
    assert told == "objective.label: the cases have no label 'diagnossis'; did you mean 'diagnosis'?"


def test_a_metric_of_a_class_that_the_cases_lack() -> None:
    told = refused(check_label, study(objective={"metric": "named_auc"}), Cases({"diagnosis": ("NEV", "BCC")}))
    assert told.startswith("objective.metric: 'named_auc' needs a label with a class that papers report")


def test_an_adaptation_whose_classes_do_not_fit() -> None:
    adapted = study("dann@other")
    (entry,) = adapted.entries.values()
    own, theirs = Cases({"finding": ("healthy", "TB")}), Cases({"finding": ("healthy", "TB")})
    check_alike(adapted, entry, {"own": own, "other": theirs})
    theirs.classes = {"finding": ("healthy", "pneumonia")}
    told = refused(check_alike, adapted, entry, {"own": own, "other": theirs})
    assert told == (
        "downstream.dann@other: must have the labels of 'own', with the same classes, "
        "not finding: healthy, TB and finding: healthy, pneumonia"
    )
    blind = Cases({"finding": ("healthy", "pneumonia")}, {"derm": [False, False, True, True]})
    told = refused(check_alike, adapted, entry, {"own": blind, "other": theirs})
    assert told == "downstream.dann@other: no training case of 'own' has images to learn from"
    told = refused(check_alike, adapted, entry, {"own": theirs, "other": blind})
    assert told == "downstream.dann@other: no training case of 'other' has images to adapt to"


@pytest.mark.parametrize(
    ("judge", "source", "other", "said"),
    [
        ("dann@other", "other", {}, "dann@other.source: 'other' is its own target; must be one of own"),
        ("dann@own", "", {}, "dann@own.source: 'own' is its own target; must be one of other"),
        ("dann@other", "chexpert", {}, "dann@other.source: no data set is called 'chexpert'; must be one of own"),
        (
            "dann@other",
            "own",
            {"modalities": ["clinic"]},
            "dann@other: data.own.modalities and data.other.modalities must be the same, not derm, clinic and clinic",
        ),
    ],
)
def test_an_adaptation_whose_source_cannot_be(judge: str, source: str, other: dict[str, Any], said: str) -> None:
    own = {**SETS["own"], "modalities": ["derm", "clinic"]} if other else SETS["own"]
    told = make_study(
        data={"own": own, "other": {**SETS["other"], **other}},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        downstream={judge: {"source": source}},
        objective={"protocol": judge, "label": "mean"},
    )
    assert refused(check, told) == f"downstream.{said}"


def test_a_judge_none_of_whose_cases_has_all_images() -> None:
    both = study(modalities=["derm"])
    check_whole(both, "other", Cases({}))
    told = refused(check_whole, both, "other", Cases({}, {"derm": [True, True, False, False]}))
    assert told.startswith("data.other.modalities: no val case of the store at stores/other has images of derm")
