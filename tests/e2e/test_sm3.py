"""The shipped SM3 studies, made tiny: the first stage is shared, everything is judged, and the command says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import timm
import torch
import warm

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard

TINY = [
    *("--quick", "data.cases=60", "data.size=32", "encoder.name=test_resnet", "search.seeds=[0]"),
    *("compute.engine=inline", "paired_contrast.batch=16", "paired_contrast.epochs=1", "linear_handover.epochs=2"),
]
LABELS = ["pseudo_labels.batch=16", "pseudo_labels.epochs=1", "pseudo_labels.width=16"]
RELATIONS = ["no_proj", "proj", "msa", "tel", "te"]


def dermsearch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder of its own; `linear_handover.` is short for its section."""
    words = tuple(w.replace("linear_handover.", "downstream.linear_handover.") for w in words)
    done = warm.run(list(words), folder)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quick study of relations has run once."""
    folder = tmp_path_factory.mktemp("sm3")
    said = json.loads(dermsearch(folder, "run", "sm3_labels", *TINY, *LABELS, "--json").stdout)
    assert said["study"] == "sm3_labels-quick" and said["results"] == "results/sm3_labels-quick"
    assert said["stages"] == {"proposed": 6, "trained": 6, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    return folder


def test_quick_results_have_a_place_and_a_study_of_their_own(labels: Path) -> None:
    assert {p.name for p in (labels / "results").iterdir()} == {"sm3_labels-quick", "store"}
    study = load(labels / "results" / "sm3_labels-quick").study
    assert study["name"] == "sm3_labels-quick" and "quick" not in study
    assert study["data"]["source"] == "synthetic" and study["encoder"]["weights"] is None
    assert study["curriculum"]["order"] == "listed"


def test_the_five_relations_share_one_first_stage(labels: Path) -> None:
    results = load(labels / "results" / "sm3_labels-quick")
    stages = results.pandas("stages")
    first, second = stages[stages.depth == 1], stages[stages.depth == 2]
    assert list(first.curriculum) == ["paired_contrast"] and set(second.parent) == set(first.key)
    config = [json.loads(s)["config"] for s in second.settings]
    assert sorted(c["relation"] for c in config) == sorted(RELATIONS)
    assert json.loads(first.settings.iloc[0])["config"]["fusion"] == "sep_sep"


def test_what_is_handed_on_is_judged_and_frozen_encoders_say_the_same(labels: Path) -> None:
    scores = load(labels / "results" / "sm3_labels-quick").pandas("scores")
    named = scores[(scores.label == "mean") & (scores.metric == "named_auc")].set_index(["protocol", "stage"]).value
    chain = scores.curriculum.eq("paired_contrast > pseudo_labels")
    second = set(scores.stage[chain])
    assert len(second) == 5
    assert named["linear"][list(second)].nunique() == 1
    handed = scores[chain & scores.protocol.eq("linear_handover") & scores.metric.eq("auc")]
    assert handed.groupby("stage").value.apply(tuple).nunique() == 5
    assert set(scores.split[scores.protocol == "pairs"]) == {"train", "val"}
    rows = leaderboard(load(labels / "results" / "sm3_labels-quick"))
    assert len(rows) == 7 and rows[0].measure.protocol == "linear_handover"


def test_a_second_run_trains_nothing_and_a_fusion_study_shares_the_stage(labels: Path) -> None:
    again = json.loads(dermsearch(labels, "run", "sm3_labels", *TINY, *LABELS, "--json").stdout)
    assert again["stages"]["reused"] == 6 and again["stages"]["trained"] == 0
    other = json.loads(dermsearch(labels, "run", "sm3_fusion", *TINY, "--json").stdout)
    assert other["stages"]["reused"] == 1 and other["stages"]["trained"] == 3


def test_given_weights_are_judged_beside_random_ones(labels: Path) -> None:
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), labels / "given.pth")
    words = ["sm3_fusion", *TINY, "encoder.weights=given.pth", "paired_contrast.fusion=none", "--out", "weights"]
    done = dermsearch(labels, "run", *words)
    assert "random weights" in done.stdout and "the weights that encoder.weights names" in done.stdout
    scores = load(labels / "weights").pandas("scores")
    at = {"protocol": "linear", "label": "mean", "metric": "named_auc"}
    mine = scores[(scores[list(at)] == list(at.values())).all(axis=1)].set_index("curriculum").value
    assert set(mine.index) == {"no pre-training", "random weights", "paired_contrast"}
    assert mine["no pre-training"] != mine["random weights"]
    before = load(labels / "results" / "sm3_labels-quick").pandas("scores")
    plain = before[(before[list(at)] == list(at.values())).all(axis=1)].set_index("curriculum").value
    assert plain["no pre-training"] == mine["random weights"], "the root of a study without weights"


def test_the_plan_shows_what_is_shared(tmp_path: Path) -> None:
    said = dermsearch(tmp_path, "plan", "sm3_labels", "--quick").stdout
    assert "18 instead of 30" in said and "1 + 5 by depth, for each of 3 seeds" in said
    assert said.endswith("no pre-training\n└── paired_contrast  x 3\n    └── pseudo_labels  x 15\n")
    assert not list(tmp_path.iterdir())


def test_the_search_over_both_stages_runs(labels: Path) -> None:
    words = ["sm3", *TINY, *LABELS, "search.trials=2", "downstream.linear=null", "--json"]
    done = json.loads(dermsearch(labels, "run", *words).stdout)
    assert done["trials"] == 2 and done["stages"]["failed"] == 0
