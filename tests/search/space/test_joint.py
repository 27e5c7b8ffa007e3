"""Tasks on several modalities at once: what they need of a study and of its cases, told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermsearch.data.case import Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.open import open_cases
from dermsearch.data.prepare.build import write_store
from dermsearch.errors import UserError
from dermsearch.run.check import check, check_cases
from dermsearch.study.config import Study


def study(**changes: Any) -> Study:
    raw: dict[str, Any] = {
        "name": "s",
        "data": {"cases": 60, "size": 32, "modalities": ["derm", "clinic"]},
        "encoder": {"name": "resnet10t", "branches": "separate"},
        "curriculum": {
            "tasks": {"paired_contrast": {}, "pseudo_labels": {}},
            "length": [1, 2],
            "order": "listed",
        },
        "train": {"epochs": 1, "batch": 16},
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        raw[section][field] = value
    return Study.model_validate(raw)


def refused(one: Study) -> str:
    with pytest.raises(UserError) as error:
        check(one)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_two_separate_branches_are_sound() -> None:
    space = check(study())
    assert [c.tasks for c in space.curricula()] == [
        ("paired_contrast",),
        ("pseudo_labels",),
        ("paired_contrast", "pseudo_labels"),
    ]


@pytest.mark.parametrize("task", ["paired_contrast", "pseudo_labels"])
def test_one_modality_is_refused(task: str) -> None:
    tasks = {"rotation": {}, task: {}}
    assert refused(study(data__modalities=["clinic"], curriculum__tasks=tasks)) == (
        f"data.modalities: must name two or more, such as [derm, clinic], for {task}, which learns from images of the "
        "same case, not [clinic]"
    )


def test_shared_branches_are_refused() -> None:
    said = "encoder.branches: must be separate for paired_contrast, which pairs derm with clinic"
    assert refused(study(encoder__branches="shared")) == said


def test_a_task_that_is_not_joint_goes_with_either() -> None:
    for branches in ("shared", "separate"):
        tasks = {"rotation": {}, "simclr": {}}
        assert check(study(encoder__branches=branches, curriculum__tasks=tasks)).count() == 3


def test_settings_that_do_not_fit_the_pairs_are_refused_by_their_field() -> None:
    tasks = {"paired_contrast": {"fusion": "none", "cross": "printed"}, "pseudo_labels": {}}
    assert refused(study(curriculum__tasks=tasks)).startswith("curriculum.tasks.paired_contrast.cross: ")


def store(folder: Path, images: list[tuple[str, ...]]) -> Study:
    """A case for every tuple of modalities: three of four for training, in turns; and the study that reads them."""
    rng = np.random.default_rng(0)
    cases = [
        Case(
            case=f"c{i}",
            lesion=f"l{i}",
            patient=f"p{i}",
            images={m: rng.integers(0, 256, (32, 32, 3), np.uint8) for m in present},
            labels={name: (i + k) % len(classes) for k, (name, classes) in enumerate(SEVEN_POINT.items())},
        )
        for i, present in enumerate(images)
    ]
    split = {case.case: "train" if i % 4 else "val" for i, case in enumerate(cases)}
    write_store(folder, cases, split, SEVEN_POINT, {"source": "test"})
    return study(data__source="store", data__path=str(folder))


BOTH = ("derm", "clinic")


def test_a_store_without_the_second_modality(tmp_path: Path) -> None:
    one = store(tmp_path / "cases", [("derm",)] * 48)
    with pytest.raises(UserError, match=r"^data\.modalities: the store at .* has no clinic images, only derm$"):
        open_cases(one.data, tmp_path)


def test_some_cases_may_lack_a_partner(tmp_path: Path) -> None:
    one = store(tmp_path / "cases", [BOTH, ("derm",), ("clinic",)] * 16)
    check_cases(one, check(one), {"data": open_cases(one.main, tmp_path)})


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([BOTH, ("derm",), ("clinic",), ("derm",)] * 12, "no training case has derm and clinic images"),
        ([BOTH, BOTH, *[("derm",), ("clinic",)] * 24], "only one training case has derm and clinic images"),
    ],
)
def test_cases_without_pairs_are_refused(images: list[tuple[str, ...]], said: str, tmp_path: Path) -> None:
    one = store(tmp_path / "cases", images)
    with pytest.raises(UserError) as error:
        check_cases(one, check(one), {"data": open_cases(one.main, tmp_path)})
    where = f"in the store at {tmp_path / 'cases'}; paired_contrast pairs them"
    assert str(error.value) == f"data.modalities: {said} {where}"


def test_a_joint_task_is_told_of_cases_and_not_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dermsearch.pretext.base import find_task

    told = {}
    for name in ("paired_contrast", "simclr"):
        task = find_task(name)
        monkeypatch.setattr(task, "check", classmethod(lambda cls, config, setting: told.update({cls.name: setting})))
    one = store(tmp_path / "cases", [BOTH, ("derm",), ("clinic",), BOTH] * 12)
    one = one.model_copy(
        update={"curriculum": one.curriculum.model_copy(update={"tasks": {"paired_contrast": {}, "simclr": {}}})}
    )
    check_cases(one, check(one), {"data": open_cases(one.main, tmp_path)})
    assert (told["paired_contrast"].units, told["simclr"].units) == (36, 24), "of 36 cases 24 have each image"
    assert told["paired_contrast"].modalities == ("derm", "clinic")
