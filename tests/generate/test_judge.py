"""Who judges made images: what it begins with, and by what its features are scaled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generate.made import JUDGING, make_store
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.errors import UserError
from dermsearch.generate.judge import Judging, make_judge, start
from dermsearch.models.artifact import ENCODERS
from dermsearch.models.encoders import Encoders
from dermsearch.storage.stages import StageStore


def test_it_may_begin_with_a_stage(tmp_path: Path) -> None:
    """With the branch that sees its images, of those that the stage has."""
    stages, made = StageStore(str(tmp_path)), Encoders.random("test_resnet", ("derm", "xray"), "separate", 5)
    with torch.no_grad():
        next(made.backbones["derm"].parameters()).add_(1)
    stages.commit("k", {ENCODERS: made.part()}, [], {"kind": "pretext"})
    found = start(Judging("xray", 32, stage="k"), stages)
    own, other = (made.backbones[branch].state_dict() for branch in ("xray", "derm"))
    told = found.backbones["shared"].state_dict()
    assert found.modalities == ("xray",) and all(torch.equal(w, own[name]) for name, w in told.items())
    assert not all(torch.equal(w, other[name]) for name, w in told.items())
    with pytest.raises(UserError, match=r"^--stage: k has no encoder that sees clinic"):
        start(Judging("clinic", 32, stage="k"), stages)


def test_features_are_scaled_by_the_real_and_dead_ones_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, stages = make_store(tmp_path / "real"), StageStore(str(tmp_path / "stages"))
    judge = make_judge(cases, JUDGING, stages, lambda row: None)
    spread = judge.features(cases, judge.rows).std(0)
    alive = ~np.isinf(judge.scale[0])
    assert alive.any() and spread[alive] == pytest.approx(1, abs=1e-6) and not judge.train[:, ~alive].any()
    assert judge.train[:, alive].mean(0) == pytest.approx(0, abs=1e-6)
    held = cases.pictures("xray", cases.split("val"))[0].copy()
    noise = np.random.default_rng(0).integers(0, 256, held.shape, np.uint8)
    assert judge.far(noise) > judge.far(held)
    monkeypatch.setattr("dermsearch.generate.judge.train_fit", lambda *_: pytest.fail("it was trained again"))
    assert make_judge(cases, JUDGING, stages, lambda row: None).key == judge.key


def test_interrupted_it_says_that_the_same_command_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dermsearch.generate.make.make_judge", stopped)
    real = str(make_store(tmp_path / "real", 24).folder)
    words = ["data", "make", real, "-o", str(tmp_path / "made"), "--store", str(tmp_path / "stages"), "--side", "32"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 130 and "Interrupted. The same command continues from here." in result.output
    assert not (tmp_path / "made").exists()
