"""The schema takes every shipped study, and none that is misspelt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dermsearch.run.schema import study_schema
from dermsearch.study.finding import shipped_folder
from dermsearch.study.reading import read

SHIPPED = sorted(shipped_folder().glob("*.yaml"))
SMALL = "{name: mine, curriculum: {length: [1, 1], tasks: {rotation: {}}}}"


@pytest.fixture(scope="module")
def checked() -> jsonschema.Draft202012Validator:
    schema = json.loads(json.dumps(study_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_taken(path: Path, checked: jsonschema.Draft202012Validator) -> None:
    found = [f"{e.json_path}: {e.message[:200]}" for e in checked.iter_errors(read(path)[0])]
    assert not found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"curriculum": {"tasks": {"rotations": {}}}}, "$.curriculum.tasks"),
        ({"curriculum": {"tasks": {"moco_v2": {"que": 3}}}}, "$.curriculum.tasks"),
        ({"curriculum": {"tasks": {"moco_v2": {"queue": {"chose": [1]}}}}}, "$.curriculum.tasks"),
        ({"train": {"epochs": 0}}, "$.train.epochs"),
        ({"downstream": {"linaer": {}}}, "$.downstream"),
        ({"downstream": {"knn@ham": {"neighbours": 3}}}, "$.downstream['knn@ham']"),
        ({"serch": {}}, "$"),
    ],
)
def test_misspelt_studies_are_not(change: dict[str, Any], place: str, checked: Any) -> None:
    study = yaml.safe_load(SMALL)
    assert checked.is_valid(study)
    assert [error.json_path for error in checked.iter_errors(study | change)] == [place]


@pytest.mark.parametrize(
    "tasks",
    [
        ["rotation", "moco_v2"],
        {"rotation": None},
        {"moco_v2": {"temperature": {"choice": [0.1, 0.2]}, "lr": {"select": [0.1, 0.3], "epochs": 2}, "epochs": 3}},
    ],
)
def test_what_a_study_may_say_is_taken(tasks: Any, checked: Any) -> None:
    study = yaml.safe_load(SMALL) | {"curriculum": {"tasks": tasks, "length": [1, 1]}}
    study |= {"downstream": {"finetune@ours": {"labelled": [5, "10%"], "repeats": 2}, "knn": None}}
    assert checked.is_valid(study)


def test_it_says_what_settings_are_for() -> None:
    schema = study_schema()
    (moco,) = [s for s in schema["$defs"]["Curricula"]["properties"]["tasks"]["anyOf"] if "properties" in s]
    assert moco["properties"]["moco_v2"]["description"]
    assert schema["$defs"]["Train"]["properties"]["batch"]["description"] == "global: over all workers"
