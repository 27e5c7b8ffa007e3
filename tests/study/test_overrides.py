"""What the command line may say of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from study.damage import STUDY, TEXT

from dermsearch.errors import UserError
from dermsearch.run.run import check
from dermsearch.search.space.checks import space_of
from dermsearch.study.load import load_study, located
from dermsearch.study.overlay import Told, tell


def test_overrides_reach_every_depth() -> None:
    study = load_study(
        str(STUDY),
        [
            "train.epochs=7",
            "moco_v2.queue=512",
            "curriculum.tasks.odc.small=2",
            "search.seeds=[1, 2]",
            "published=null",
        ],
    )
    assert (study.train.epochs, study.search.seeds, study.published) == (7, (1, 2), None)
    assert study.curriculum.tasks["moco_v2"] == {"queue": 512}
    assert study.curriculum.tasks["odc"] == {"clusters": 16, "small": 2}
    assert study.curriculum.tasks["relative_location"] == {}


def test_an_override_reaches_into_a_list_of_tasks() -> None:
    study = load_study("curriculum_three.yaml", ["curriculum.tasks=[moco_v2, odc, relative_location]", "odc.small=3"])
    assert study.curriculum.tasks == {"moco_v2": {}, "odc": {"small": 3}, "relative_location": {}}


@pytest.mark.parametrize(
    ("override", "kind", "values"),
    [
        ("moco_v2.queue={choice: [128, 256]}", "choice", (128, 256)),
        ("odc.recompute={log: [1, 16]}", "log", (1, 16)),
        ("odc.recompute={range: [1, 16]}", "range", (1, 16)),
        ("relative_location.patch={range: [24, 32]}", "range", (24, 32)),
        ("moco_v2.lr={choice: [1e-3, 0.1]}", "choice", (0.001, 0.1)),
        ("moco_v2.lr={log: [1e-3, 1]}", "log", (0.001, 1.0)),
        ("odc.dropout={range: [0, 0.5]}", "range", (0.0, 0.5)),
        ("odc.optimizer={choice: [sgd, adamw]}", "choice", ("sgd", "adamw")),
    ],
)
def test_dimensions(override: str, kind: str, values: tuple[Any, ...]) -> None:
    space = check(load_study("curriculum_three.yaml", ["search.sampler=random", "search.trials=3", override]))
    [found] = space.dimensions
    assert (found.name, found.kind, found.values) == (override.split("=")[0], kind, values)
    assert [type(v) for v in found.values] == [type(v) for v in values]


def test_space_alone_refuses_what_its_tasks_refuse() -> None:
    with pytest.raises(UserError, match=r"curriculum\.tasks\.odc\.small: must be at least 1, not 0"):
        space_of(load_study("curriculum_three.yaml", ["odc.small=0"]))


NAMED = """\
name: several
data:
  ham: {source: store, path: ham, size: 64}
  pad: {source: store, path: pad}
curriculum: {tasks: {moco_v2: {}}}
downstream:
  linear@ham: {}
  finetune@pad: {labelled: [5, 20, all], repeats: 3}
  knn:
quick:
  data: {ham: {source: synthetic, path: null}, pad: {size: 32}}
"""


def several(folder: Path, *overrides: str, quick: bool = False) -> Told:
    file = folder / "study.yaml"
    file.write_text(NAMED)
    return tell(str(file), overrides, quick)


def test_overrides_reach_a_data_set_and_a_protocol_by_name(tmp_path: Path) -> None:
    told = several(tmp_path, "data.ham.size=32", "finetune@pad.labelled=[5, 10%]", "knn.k=5", "linear@ham=null")
    assert told.raw["data"]["ham"] == {"source": "store", "path": "ham", "size": 32}
    assert told.raw["downstream"] == {
        "linear@ham": None,
        "finetune@pad": {"labelled": [5, "10%"], "repeats": 3},
        "knn": {"k": 5},
    }
    said = ["data.ham.size", "downstream.finetune@pad.labelled.1", "downstream.knn.k", "downstream.linear@ham"]
    assert [told.place(name) for name in said] == [f"command line: {name}: " for name in said]


def test_a_name_is_told_with_its_line(tmp_path: Path) -> None:
    told, file = several(tmp_path), tmp_path / "study.yaml"
    for name, line in {
        "data.pad.path": 4,
        "data.pad.source": 4,
        "data.ham": 3,
        "downstream.finetune@pad.labelled.1": 8,
        "downstream.linear@ham.c": 7,
    }.items():
        assert told.place(name) == f"{file}:{line}: {name}: "


def test_quick_reaches_a_data_set_by_name(tmp_path: Path) -> None:
    told, file = several(tmp_path, quick=True), tmp_path / "study.yaml"
    assert told.raw["data"] == {
        "ham": {"source": "synthetic", "size": 64},
        "pad": {"source": "store", "path": "pad", "size": 32},
    }
    assert told.place("data.pad.size") == f"{file}:11: quick.data.pad.size: "
    assert told.place("data.pad.path") == f"{file}:4: data.pad.path: "


def test_a_task_goes_before_a_protocol_of_the_same_name(tmp_path: Path) -> None:
    raw = {"name": "x", "curriculum": {"tasks": {"both": {}}}, "downstream": {"both": {}}}
    told = tell(raw, ["both.k=1", "downstream.both.k=2"], False)
    assert told.raw["curriculum"]["tasks"] == {"both": {"k": 1}}
    assert told.raw["downstream"] == {"both": {"k": 2}}


def test_a_study_may_be_a_mapping_which_stays_as_it_was() -> None:
    raw = yaml.safe_load(TEXT)
    study = load_study(raw, ["odc.small=2"])
    assert raw == yaml.safe_load(TEXT)
    assert study == load_study(str(STUDY), ["odc.small=2"])
    with pytest.raises(UserError, match=r"^study: train\.epochs: must be at least 1, not 0$"):
        load_study({**raw, "train": {"epochs": 0}})
    with pytest.raises(UserError, match=r"^command line: train\.epochs: must be at least 1, not 0$"):
        load_study(raw, ["train.epochs=0"])
    with pytest.raises(UserError, match=r"^study: curriculum\.tasks\.odc: is bad$"), located(raw):
        raise UserError("curriculum.tasks.odc: is bad")
