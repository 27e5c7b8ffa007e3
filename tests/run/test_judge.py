"""Encoders from elsewhere: as roots of a study, in its plan and tables, and judged by its protocols alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from conftest_search import make_study
from made_hub import REPOSITORY, Fill, repository
from made_hub import fill as fill
from rich.console import Console

from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS
from dermsearch.models.weights import fingerprint
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard, render
from dermsearch.run.judge import judging
from dermsearch.run.plan import lines, make_plan
from dermsearch.run.run import run_study
from dermsearch.storage.stages import StageStore

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


def study_of(folder: Path, weights: Any = None, **more: Any) -> Any:
    told: dict[str, Any] = {
        "data": {"cases": 60, "size": 32},
        "encoder": {"name": "test_resnet", "weights": weights},
        "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]},
        "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
        "downstream": {"knn": {"k": 5}},
        "objective": {"protocol": "knn", "metric": "auc", "label": "mean"},
        "compute": {"engine": "inline", "store": str(folder / "store")},
        "logging": [],
    }
    return make_study(**told | more)


def test_imagenet_is_a_row_of_any_table(fill: Fill, tmp_path: Path) -> None:
    path = fill()
    own = tmp_path / "own.safetensors"
    shutil.copy(repository(tmp_path / "mine", seed=3), own)
    study = study_of(tmp_path, {"choice": [None, "imagenet", str(own)]})
    assert not run_study(study, tmp_path / "out", None, QUIET).failed
    rows = {row.name for row in leaderboard(load(tmp_path / "out"))}
    roots = ("random", "imagenet", "own.safetensors")
    assert rows == {*(f"{root}: rotation" for root in roots), "random: no pre-training", *roots[1:]}
    store = StageStore(str(tmp_path / "store"))
    content = fingerprint(str(path))
    kept = store.weights(content, "test_resnet")
    assert kept is not None and "conv1.0.weight" in kept[ENCODERS].state
    stages = load(tmp_path / "out").stages["key"].to_pylist()
    told = {(store.manifest(key) or {})["weights"] for key in stages}
    assert told == {"", content, fingerprint(str(own))}


def test_a_plan_says_where_weights_came_from_and_downloads_once(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo_id: str, filename: str, revision: str | None) -> str:
        asked.append(repo_id)
        return str(fill(repo_id, file=filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    study = study_of(tmp_path, {"choice": [None, "imagenet"]})
    for _ in range(2):
        text = "\n".join(lines(make_plan(study)))
        assert f"weights    imagenet: model.safetensors of {REPOSITORY} at " in text
    assert asked == [REPOSITORY]


def test_weights_may_say_what_they_are_of(fill: Fill, tmp_path: Path) -> None:
    fill("timm/test_vit.r160_in1k", network="test_vit")
    study = study_of(tmp_path, {"choice": [None, {"name": "test_vit", "weights": "imagenet"}]})
    told = [(root.name, root.encoder, root.weights) for root in study.encoder.roots]
    assert told == [("test_resnet random", "test_resnet", None), ("test_vit imagenet", "test_vit", "imagenet")]
    make_plan(study)


def test_judging_trains_nothing_and_ranks(fill: Fill, tmp_path: Path) -> None:
    fill(), fill("timm/test_vit.r160_in1k", network="test_vit")
    exported = tmp_path / "exported"
    shutil.copytree(fill("me/net", seed=5).parent, exported)
    bare = str(shutil.copy(exported / "model.safetensors", tmp_path / "bare.safetensors"))
    ours = study_of(tmp_path)
    run_study(ours, tmp_path / "out", None, QUIET)
    best = next(row for row in leaderboard(load(tmp_path / "out")) if row.length)
    given = ["imagenet", "test_vit.r160_in1k", str(exported), f"test_resnet={bare}", "hf-hub:me/net", best.keys[0]]
    study = judging(ours, given)
    assert study.name == "test-judged" and study.downstream == ours.downstream and study.main == ours.main
    outcome = run_study(study, tmp_path / "judged", None, QUIET)
    assert not outcome.failed and outcome.summary["stages"]["proposed"] == 0
    results = load(tmp_path / "judged")
    rows = leaderboard(results)
    roots = ["random", "imagenet", "exported", best.keys[0][:8]]  # the same weights in three places are one root
    assert {row.root for row in rows} == {*(f"test_resnet {root}" for root in roots), "test_vit r160_in1k"}
    assert all(row.score is not None and row.rank for row in rows) and rows[0].rank == 1
    stage = next(row for row in rows if row.root.endswith(best.keys[0][:8]))
    assert stage.score == best.score, "a stage is judged here as it was there"
    Console(file=(tmp_path / "shown").open("w"), width=110).print(render(rows, study.name, results))
    assert "plan" not in study.name and "no pre-training" in (tmp_path / "shown").read_text()
    assert "none: what the study begins with is judged" in "\n".join(lines(make_plan(study)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nothing=w.pth", "timm has no network 'nothing'"),
        ("resnet18=r160_in1k", "none of timm's weights for resnet18"),
        ("none.pth", "is no file"),
        ("0" * 32, "has no finished stage"),
        ("imagenet", "is not in the hub's cache"),
    ],
)
def test_what_cannot_be_judged_is_said(given: str, told: str, fill: Fill, tmp_path: Path) -> None:
    StageStore(str(tmp_path / "store"))
    with pytest.raises(UserError, match=told):
        run_study(judging(study_of(tmp_path), [given]), tmp_path / "out", None, QUIET)


@pytest.mark.parametrize(
    ("curriculum", "search", "told"),
    [
        ({"tasks": {}}, {}, "tasks: must have at least 1 item, or length must be"),
        ({"tasks": {"rotation": {}}, "length": [0, 0]}, {}, "length: must be"),
        ({"tasks": {}, "length": [0, 0]}, {"sampler": "tpe", "trials": 3}, "search.sampler: must be grid"),
    ],
)
def test_roots_alone_are_asked_for_in_one_way(curriculum: Any, search: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        make_plan(study_of(tmp_path, curriculum=curriculum, search=search))


def test_random_roots_differ_from_given_ones(fill: Fill) -> None:
    """The made-up weights are others than those that a seed gives, or the tests above would see nothing."""
    from safetensors.torch import load_file

    from dermsearch.models.encoders import Encoders

    random = Encoders.random("test_resnet", ("derm",), "shared", 0).state_dict()
    given = load_file(fill())
    assert not torch.equal(random["backbones.shared.conv1.0.weight"], given["conv1.0.weight"])
