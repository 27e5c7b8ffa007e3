"""The commonest mistakes, word for word."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator
from study.damage import TEXT, refused

from dermsearch.study.fields import Section
from dermsearch.study.wording import problem

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
        "study.yaml:27: search.sampler: 'gird' is not a sampler; did you mean 'grid'?",
    ),
    (
        ("sampler: grid", "sampler: grid, learn_from: [aiseeme_table1]"),
        "study.yaml:27: search.learn_from: goes with sampler curriculum_prior, not 'grid'",
    ),
    (
        ("sampler: grid", "sampler: curriculum_prior, trials: 3, learn_from: [aiseeme_tabel1]"),
        "study.yaml:27: search.learn_from: 'aiseeme_tabel1' is neither a results folder nor a CSV file nor a published "
        "table; did you mean 'aiseeme_table1'?",
    ),
    (
        ("sampler: grid", "sampler: tpe, trials: 3, round: 4"),
        "study.yaml:27: search.round: proposals come no longer in rounds; give search.lag, how many are under "
        "way at once",
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


# One data set or several by name -------------------------------------------------------------------------------


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


def form(value: Any) -> str:
    """Which member of a union a value is."""
    if isinstance(value, dict) and "choice" in value:
        return "[choice]"
    several = isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values())
    return "[several]" if several else "[one]"


Key = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]*$")]


class Several(Section):
    """A study in small: unions are tagged, and tags stand in brackets."""

    data: Annotated[Annotated[Cases, Tag("[one]")] | Annotated[dict[Key, Cases], Tag("[several]")], Discriminator(form)]
    others: dict[Key, Cases] = Field(default={})
    more: list[Cases] = Field(default=[])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": {"size": 3}}, ["data.size: must be at least 32, not 3"]),
        ({"data": {"sise": 64}}, ["data.sise: unknown field; did you mean 'size'?"]),
        ({"data": {"path": "bad"}}, ["data.path: is bad"]),
        ({"data": {"ham": {"size": 3}}}, ["data.ham.size: must be at least 32, not 3"]),
        ({"data": {"ham": {"sise": 64}}}, ["data.ham.sise: unknown field; did you mean 'size'?"]),
        ({"data": {"size": {"sise": 64}}}, ["data.size.sise: unknown field; did you mean 'size'?"]),
        ({"data": {"ham": {"path": "bad"}}}, ["data.ham.path: is bad"]),
        ({"data": {"ham": {"kinds": ["xray"]}}}, ["data.ham.kinds.0: must be one of derm, clinic, not 'xray'"]),
        (
            {"data": {"Ham": {}}},
            ["data.Ham: must be a name (letters, digits, '.', '_', '-', at most 64 in all), not 'Ham'"],
        ),
        ({"data": 3}, ["data: must be a mapping (key: value), not 3"]),
        ({"data": {"choice": [1]}}, ['data: must be a value or a mapping of names, not {"choice": [1]}']),
        ({}, ["data: is missing"]),
        (
            {"data": {}, "others": {"a": {"sise": 64}}, "more": [{"pth": ""}]},
            ["others.a.sise: unknown field; did you mean 'size'?", "more.0.pth: unknown field; did you mean 'path'?"],
        ),
    ],
    ids=str,
)
def test_a_field_is_named_where_it_stands_in_a_union_a_mapping_or_a_list(given: Any, said: list[str]) -> None:
    with pytest.raises(ValidationError) as error:
        Several.model_validate(given)
    problems = [problem(dict(e), Several) for e in error.value.errors()]
    assert [f"{name}: {text}" for name, text in problems] == said


def test_a_setting_of_a_task_is_corrected_by_its_own_fields() -> None:
    with pytest.raises(ValidationError) as error:
        Cases.model_validate({"epochs": 3, "syze": 64})
    assert [problem(dict(e), Cases) for e in error.value.errors()] == [
        ("epochs", "unknown field; choose from: size, path, kinds"),
        ("syze", "unknown field; did you mean 'size'?"),
    ]


def test_a_sentence_of_ours_may_name_a_field_with_a_place_or_a_data_set() -> None:
    class Judged(Section):
        downstream: dict[str, Any]

        @model_validator(mode="after")
        def _fits(self) -> Judged:
            raise ValueError("downstream.finetune@pad.labelled.1: must be a number")

    with pytest.raises(ValidationError) as error:
        Judged.model_validate({"downstream": {}})
    [found] = error.value.errors()
    assert problem(dict(found)) == ("downstream.finetune@pad.labelled.1", "must be a number")
