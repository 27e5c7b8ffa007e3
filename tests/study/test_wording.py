"""The commonest mistakes, word for word."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from study.damage import TEXT, refused

from dermsearch.study.config import Section
from dermsearch.study.wording import problems

MESSAGES = [
    (
        ("sampler: grid", "sampler: tpe"),
        "study.yaml:27: search.trials: is missing: sampler 'tpe' needs to know how many, or a budget",
    ),
    (
        ("encoder: {name: resnet18}", "encoder: {name: resnet18, brances: shared}"),
        "study.yaml:9: encoder.brances: unknown field; did you mean 'branches'?",
    ),
    (("train:", "lr: 0.1\ntrain:"), "study.yaml:19: lr: unknown field; did you mean 'train.lr'?"),
    (
        ("curriculum:\n", "curiculum:\n"),
        "study.yaml:11: curiculum: unknown field; did you mean 'curriculum'? (1 more wrong: curriculum)",
    ),
    (("epochs: 4", "epochs: four"), "study.yaml:19: train.epochs: must be a whole number, not 'four'"),
    (("epochs: 4", "epochs: '4'"), "study.yaml:19: train.epochs: must be a whole number, not '4' (without quotes)"),
    (("epochs: 4", "epochs: 0"), "study.yaml:19: train.epochs: must be at least 1, not 0"),
    (("name: curriculum", "name: 2026"), "study.yaml:3: name: must be text, not 2026 (text goes in quotes)"),
    (
        ("sampler: grid", "sampler: gird"),
        "study.yaml:27: search.sampler: must be one of grid, random, tpe, curriculum_prior, gp, "
        "cmaes, nsgaii, nsgaiii, qmc, not 'gird'; did you mean 'grid'?",
    ),
    (
        ("resnet18}", "resnet-18}"),
        "study.yaml:9: encoder.name: 'resnet-18' is not a model of timm; did you mean 'resnet18'?",
    ),
    (
        ("moco_v2: {", "moco: {"),
        "study.yaml:16: curriculum.tasks.moco: 'moco' is not a task; did you mean 'moco_v2'?",
    ),
    (
        ("queue: 256", "queue: 100"),
        "study.yaml:16: curriculum.tasks.moco_v2.queue: 100 is not a multiple of the batch, 64",
    ),
    (
        ("queue: 256", "queue: {log: [64, 256]}"),
        "study.yaml:16: curriculum.tasks.moco_v2.queue: must be {choice: [...]} for sampler 'grid', not 'log', "
        "which goes with random and tpe",
    ),
    (
        ("clusters: 16", "clusters: 64"),
        "study.yaml:17: curriculum.tasks.odc.clusters: 64 clusters of at least 20 images (small) need 1280 "
        "training images; there are 420",
    ),
    (
        ("length: [1, 3]", "length: [1, 4]"),
        "study.yaml:12: curriculum.length: must be at most 3, the number of tasks, not 4; "
        "lower it or set repeats: true",
    ),
    (
        ("protocol: linear", "protocol: knnn"),
        "study.yaml:25: objective.protocol: must be one of downstream (knn, linear), not 'knnn'",
    ),
    (
        ("batch: 64", "batch: 65"),
        "study.yaml:19: train.batch: must be a multiple of compute.workers, 2, not 65",
    ),
    (("k: 20", "k: 20, k: 30"), "study.yaml:22: 'k' stands twice in the same section"),
    (
        ("k: 20}", "k: 20"),
        "study.yaml:23: not valid YAML: expected ',' or '}', but got ':'; what began in line 22 is not closed",
    ),
    (("  length", "\tlength"), "study.yaml:12: not valid YAML: a tab cannot indent a line; use spaces"),
]


@pytest.mark.parametrize(("change", "message"), MESSAGES, ids=[change[1].strip() for change, _ in MESSAGES])
def test_the_message_says_where_what_and_what_instead(change: tuple[str, str], message: str) -> None:
    assert change[0] in TEXT
    text = TEXT.replace(*change, 1)
    if "batch: 65" in text:
        text = text.replace("workers: 1", "workers: 2")
    assert refused(text) == message


# One data set or several by name, in both ways that a model can say it -----------------------------------------


class Cases(Section):
    """A section that may stand once, or several times by name."""

    size: int = Field(default=64, ge=32)
    path: str = ""
    kinds: Annotated[tuple[Literal["derm", "clinic"], ...], Field(strict=False)] = ("derm",)

    @model_validator(mode="after")
    def _fits(self) -> Cases:
        if self.path == "bad":
            raise ValueError("path: is bad")
        return self


Key = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]*$")]


class AsUnion(Section):
    """One or several: a union."""

    data: Cases | dict[Key, Cases]
    weights: str | list[str] | None = None


def named(value: Any) -> Any:
    """One data set is one that is called data."""
    several = isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values())
    return {"data": value} if isinstance(value, dict) and not several else value


class AsMapping(Section):
    """One or several: always several once it is read."""

    data: Annotated[dict[Key, Cases], BeforeValidator(named)]
    weights: str | list[str] | None = None


@pytest.mark.parametrize("model", [AsUnion, AsMapping])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"size": 3}, ["data.size: must be at least 32, not 3"]),
        ({"sise": 64}, ["data.sise: unknown field; did you mean 'size'?"]),
        ({"ham": {"size": 3}}, ["data.ham.size: must be at least 32, not 3"]),
        ({"ham": {"sise": 64}}, ["data.ham.sise: unknown field; did you mean 'size'?"]),
        (
            {"ham": {"sise": 64, "pth": "x"}},
            ["data.ham.sise: unknown field; did you mean 'size'?", "data.ham.pth: unknown field; did you mean 'path'?"],
        ),
        (
            {"ham": {"size": 3, "kinds": ["xray"]}, "pad": {}},
            ["data.ham.size: must be at least 32, not 3", "data.ham.kinds.0: must be one of derm, clinic, not 'xray'"],
        ),
        (
            {"ham": {"size": 3}, "pad": {"sise": 64}},
            ["data.pad.sise: unknown field; did you mean 'size'?", "data.ham.size: must be at least 32, not 3"],
        ),
        ({"path": "bad"}, ["data.path: is bad"]),
        ({"ham": {"path": "bad"}}, ["data.ham.path: is bad"]),
        ({"ham": {"kinds": 3}}, ["data.ham.kinds: must be a list, not 3"]),
        ({"Ham": {}}, ["data.Ham: must be a name (letters, digits, '.', '_', '-', at most 64 in all), not 'Ham'"]),
        (3, ["data: must be a mapping (key: value), not 3"]),
    ],
    ids=str,
)
def test_a_field_is_named_where_it_stands_whatever_a_model_makes_of_it(
    model: type[Section], data: Any, said: list[str]
) -> None:
    given = {"data": data}
    with pytest.raises(ValidationError) as error:
        model.model_validate(given)
    assert [f"{name}: {text}" for name, text in problems(error.value, model, given)] == said


@pytest.mark.parametrize("model", [AsUnion, AsMapping])
def test_what_is_missing_and_what_no_member_of_a_union_takes(model: type[Section]) -> None:
    for given, said in (
        ({}, [("data", "is missing")]),
        ({"data": {}, "weights": 3}, [("weights", "must be text, not 3")]),
        ({"data": {}, "weights": ["a", 3]}, [("weights.1", "must be text, not 3")]),
    ):
        with pytest.raises(ValidationError) as error:
            model.model_validate(given)
        found = problems(error.value, model, given)
        assert [(name, text.removesuffix(" (text goes in quotes)")) for name, text in found] == said


def test_a_setting_of_a_task_is_corrected_by_its_own_fields() -> None:
    with pytest.raises(ValidationError) as error:
        Cases.model_validate({"epochs": 3, "syze": 64})
    said = dict(problems(error.value, Cases))
    assert said == {
        "epochs": "unknown field; choose from: size, path, kinds",
        "syze": "unknown field; did you mean 'size'?",
    }


def test_a_sentence_of_ours_may_name_a_field_with_a_place_or_a_data_set() -> None:
    class Judged(Section):
        downstream: dict[str, Any]

        @model_validator(mode="after")
        def _fits(self) -> Judged:
            raise ValueError("downstream.finetune@pad.labelled.1: must be a number")

    with pytest.raises(ValidationError) as error:
        Judged.model_validate({"downstream": {}})
    assert problems(error.value, Judged) == [("downstream.finetune@pad.labelled.1", "must be a number")]
