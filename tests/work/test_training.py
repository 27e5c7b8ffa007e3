"""What a study says of training reaches the stage: settings, keys, starting weights, kNN, loggers."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from conftest_search import make_study
from pydantic import ValidationError
from rich.console import Console

from dermsearch.errors import UserError
from dermsearch.models.encoders import Encoders
from dermsearch.run.check import check
from dermsearch.run.plan import make_plan
from dermsearch.run.run import run_study
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.settings import complete
from dermsearch.storage.keys import root_key
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study, Train

TASK = "curriculum.tasks.simclr"
CONSOLE = Console(file=io.StringIO())


def simclr(**given: Any) -> Study:
    return make_study(
        curriculum={"tasks": {"simclr": given}, "length": [1, 1]}, encoder={"name": "test_resnet"},
        **{"compute__store": "unused"},
    )  # fmt: skip


def test_the_authors_say_what_the_study_does_not():
    authors = {"optimizer": "adamw", "weight_decay_end": 0.4, "final_lr": 0.002, "clip": 3.0, "lr": 0.1, "lr_batch": 64}
    found = complete(Train(batch=128, schedule="step", milestones=(0.5,)), authors)
    assert {**authors, "lr": 0.2}.items() - {("lr_batch", 64)} <= {
        (k, v) for k, v in found.items() if not isinstance(v, (list, tuple))
    }
    assert (found["schedule"], list(found["milestones"]), found["factor"]) == ("step", [0.5], 0.1)
    assert (found["accumulate"], found["patience"]) == (1, 0)
    assert complete(Train(clip=1.0), authors)["clip"] == 1.0
    assert found.keys() == Train.model_fields.keys() - {"precision", "knn_every"}


def test_what_changes_a_result_changes_the_stage_and_what_watches_does_not():
    plain = space_of(simclr()).settings("simclr", {})
    assert space_of(make_study(curriculum=simclr().curriculum.model_dump(), train__knn_every=3)) is not None
    for changed in ({"accumulate": 2}, {"patience": 3}, {"optimizer": "sgd"}, {"final_lr": 0.5}, {"clip": 1.0},
                    {"weight_decay_end": 0.5}, {"schedule": "step", "milestones": [0.5]}, {"factor": 0.2}):  # fmt: skip
        assert space_of(simclr(**changed)).settings("simclr", {}) != plain, changed
    watched = simclr().model_dump() | {"train": {"epochs": 2, "batch": 16, "precision": "fp32", "knn_every": 1}}
    assert space_of(Study.model_validate(watched)).settings("simclr", {}) == plain


@pytest.mark.parametrize("given, told", [
    ({"accumulate": 3}, f"{TASK}.batch: must be a multiple of accumulate x compute.workers, 3, not 16"),
    ({"schedule": "step"}, f"{TASK}.milestones: must be given for schedule 'step', such as"),
    ({"schedule": "step", "milestones": [0.8, 0.5]}, f"{TASK}.milestones: must rise from one to the next, not"),
    ({"milestones": [0.5, 1.5]}, f"{TASK}.milestones"),
    ({"optimizer": "adam"}, f"{TASK}.optimizer: "),
    ({"knn_every": 3}, f"{TASK}.knn_every: unknown field"),
    ({"accumulate": 16}, "compute.workers: a batch of 16, all there is, does not divide among 1 worker x 16"),
])  # fmt: skip
def test_settings_that_cannot_be(given, told):
    with pytest.raises(UserError) as error:
        check(simclr(**given))
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def test_patience_needs_images_that_a_task_does_not_train_on():
    odc = {"tasks": {"odc": {"clusters": 4, "small": 5}}, "length": [1, 1]}
    with pytest.raises(UserError, match=r"^curriculum.tasks.odc.patience: must be 0: odc has no loss on images"):
        check(make_study(curriculum=odc, train__patience=5))
    odc["tasks"]["odc"]["patience"] = 0
    check(make_study(curriculum=odc, train__patience=5))
    with pytest.raises(UserError, match=r"patience: must be 0 where data\.transductive"):
        check(make_study(curriculum={"tasks": {"simclr": {}}, "length": [1, 1]}, train__patience=5,
                         data={"cases": 80, "size": 32, "transductive": True}))  # fmt: skip


def test_an_uneven_batch_of_the_study():
    with pytest.raises(ValidationError, match=r"train\.batch: must be a multiple of accumulate x compute\.workers, 6"):
        make_study(train__batch=16, train__accumulate=3, compute={"workers": 2})


def file_of_weights(path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": state}, path)
    return state


def study_in(folder: Path, **changes: Any) -> Study:
    raw: dict[str, Any] = {
        "curriculum": {"tasks": {"relative_location": {}}, "length": [1, 1]}, "encoder": {"name": "test_resnet"},
        "downstream": {"knn": {"k": 3}}, "objective": {"protocol": "knn"}, "data": {"cases": 40, "size": 32},
        "compute": {"engine": "inline", "store": str(folder / "store")},
    }  # fmt: skip
    return make_study(**{**raw, **changes})


@pytest.mark.slow
def test_every_curriculum_starts_with_the_files_weights(tmp_path):
    """The root is the file; another file is another root; the same content elsewhere is the same."""
    state = file_of_weights(tmp_path / "w.pth")
    encoder = {"name": "test_resnet", "weights": str(tmp_path / "w.pth")}
    outcome = run_study(study_in(tmp_path, encoder=encoder), tmp_path / "out", None, CONSOLE)
    assert outcome.summary["stages"]["trained"] == 1 and not outcome.failed
    store = StageStore(str(tmp_path / "store"))
    stages = {p.name: store.manifest(p.name) for p in (tmp_path / "store" / "stages").iterdir()}
    (root,) = (manifest["parent"] for manifest in stages.values() if manifest["task"])
    assert sum(not manifest["task"] for manifest in stages.values()) == 2  # random weights are judged beside them
    kept = store.artifact(root)["encoders"].state
    assert all(torch.equal(v, state[n.removeprefix("backbones.shared.")]) for n, v in kept.items()) and kept

    (tmp_path / "copy.pth").write_bytes((tmp_path / "w.pth").read_bytes())
    moved = {**encoder, "weights": str(tmp_path / "copy.pth")}
    again = run_study(study_in(tmp_path, encoder=moved), tmp_path / "again", None, CONSOLE)
    assert again.summary["stages"]["reused"] == 1
    assert make_plan(study_in(tmp_path, encoder=moved)).cached == 1
    file_of_weights(tmp_path / "copy.pth", seed=1)
    assert make_plan(study_in(tmp_path, encoder=moved)).cached == 0
    assert make_plan(study_in(tmp_path)).cached == 0, "random weights are another root"


def test_a_wrong_file_is_refused_before_anything_starts(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    for path, told in ((tmp_path / "w.pth", "does not fit encoder.name, 'test_resnet': it lacks conv1"),
                       (tmp_path / "none.pth", "is no file")):  # fmt: skip
        study = study_in(tmp_path, encoder={"name": "test_resnet", "weights": str(path)})
        for start in (lambda: make_plan(study), lambda: run_study(study, tmp_path / "out", None, CONSOLE)):  # noqa: B023
            with pytest.raises(UserError, match=told):
                start()
    assert not (tmp_path / "store").exists() and not (tmp_path / "out").exists()


def test_the_root_key_knows_the_content_not_the_path():
    one, other = (make_study(encoder={"name": "test_resnet", "weights": f"{name}.pth"}) for name in "ab")
    given = "f", "test_resnet", "shared", 0
    key = root_key(one.main, *given, "hash")
    assert key == root_key(other.main, *given, "hash") != root_key(one.main, *given, "x")
    assert key != root_key(one.main, *given)


@pytest.mark.slow
def test_knn_patience_and_loggers_in_a_study(tmp_path, monkeypatch):
    """kNN stands in the history as asked, a second time too where it was not asked: the stage is the same."""
    runs: list[Any] = []
    fake = ModuleType("wandb")
    fake.init = lambda **given: (  # type: ignore[attr-defined]
        runs.append((given["name"], [])) or SimpleNamespace(log=lambda row, step: runs[-1][1].append(row), finish=int)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    changes: dict[str, Any] = {"logging": ["tensorboard", "wandb"]}
    train = {"epochs": 3, "batch": 16, "precision": "fp32", "patience": 3}
    study = study_in(tmp_path, train={**train, "knn_every": 2}, **changes)
    assert not run_study(study, tmp_path / "out", None, CONSOLE).failed
    store = StageStore(str(tmp_path / "store"))
    (stage,) = (p.name for p in (tmp_path / "store" / "stages").iterdir() if store.history(p.name))
    history = store.history(stage)
    assert ["knn" in row for row in history] == [False, True, False] and 0 <= history[1]["knn"] <= 1
    assert all(row["val_loss"] > 0 and row["peak_memory"] > 0 for row in history)
    assert len(runs) == 1 and len(runs[0][1]) == 3 and runs[0][0].startswith("relative_location-seed0")
    assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 1
    again = run_study(study_in(tmp_path, train=train, **changes), tmp_path / "again", None, CONSOLE)
    assert again.summary["stages"]["reused"] == 1 and len(runs) == 1, "only what was trained is logged there"


def test_encoders_seen_through_other_backbones_stay_as_they_are():
    made, other = (Encoders.random("test_resnet", ("derm",), "shared", seed) for seed in (0, 1))
    shown = made.seen_through(other.backbones)  # type: ignore[arg-type]
    assert shown.backbones["shared"] is other.backbones["shared"] is not made.backbones["shared"]
    assert (shown.dim, shown.modalities) == (made.dim, made.modalities)
