"""A comparison system in a package of somebody else's, made by following docs/systems.md to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data.page import files, install
from fit import pairs, small
from rich.console import Console
from torch.testing import assert_close

from dermsearch.errors import UserError
from dermsearch.fit.base import FITS
from dermsearch.fit.heads import mean_loss
from dermsearch.fit.system import COMMON
from dermsearch.registry import Registry
from dermsearch.results import load
from dermsearch.run.run import run_study
from dermsearch.study.config import Study
from dermsearch.testing import check_fit

pytestmark = pytest.mark.slow


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    assert set(files("systems.md")) == {"late.py", "pyproject.toml"}
    install("systems.md", tmp_path, monkeypatch)
    yield
    Registry.find.cache_clear()


def test_it_keeps_what_every_fit_promises(installed: None) -> None:
    check_fit("late", small.SHORT)


def test_its_recipes_its_loss_and_its_answer(installed: None, tmp_path: Path) -> None:
    fit = FITS.find("late")
    assert fit.recipe(fit.Config(recipe="common")) == dict(COMMON)
    assert fit.recipe(fit.Config(batch=16))["epochs"] == 30
    store = pairs.make_store(tmp_path / "store")
    module = pairs.system("late", store)
    given = pairs.batches(module, store, np.arange(8))
    said, truth = module.said(given), torch.from_numpy(np.stack([store.label(x)[:8] for x in store.classes], 1))
    for d, c, both in zip(*(said.groups[group] for group in ("d", "c", "dc")), strict=True):
        assert_close(both, (d + c) / 2)
    value, parts = module.objective(said, truth.long(), (), 0)
    assert list(parts) == ["d", "c", "dc"]
    assert_close(value, torch.stack([mean_loss(x, truth.long())[0] for x in said.groups.values()]).sum())


def study(**downstream: object) -> Study:
    cases = {"cases": 60, "size": 32, "modalities": ["derm", "clinic"]}
    return Study.model_validate(
        {
            "name": "late",
            "data": {"own": cases, "common": cases},
            "encoder": {"name": "test_resnet", "branches": "separate"},
            "curriculum": {"tasks": {}, "length": [0, 0]},
            "downstream": downstream,
            "objective": {"protocol": next(iter(downstream)), "metric": "auc", "label": "mean"},
            "compute": {"engine": "inline"},
            "logging": [],
        }
    )


def test_a_study_runs_it_by_its_own_recipe_and_by_the_common_one(installed: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"epochs": 1, "batch": 16}
    both = {"late@own": short, "late@common": {**short, "recipe": "common"}}
    run_study(study(**both), tmp_path / "out", None, Console(quiet=True))
    scores = load(tmp_path / "out").pandas("scores")
    assert {*zip(scores.protocol, scores.data, strict=True)} == {("late", "common"), ("late", "own")}
    own, common = ([*scores[scores.data == data].value.dropna()] for data in ("own", "common"))
    assert len(own) == len(common) > 10 and own != common, "another rate"
    with pytest.raises(UserError, match=r"^downstream\.late@own\.recipe: must be one of own, common, not 'theirs'$"):
        run_study(study(**{"late@own": {"recipe": "theirs"}}), tmp_path / "no", None, Console(quiet=True))
