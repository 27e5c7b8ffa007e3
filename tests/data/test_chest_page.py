"""The study of docs/chest.md is sound, and one that judges attention without masks is refused before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dermsearch.errors import UserError
from dermsearch.run.check import check, check_cases
from dermsearch.study.load import load_study
from dermsearch.testing.small import make_store

PAGE = (Path(__file__).parents[2] / "docs" / "chest.md").read_text()


def test_the_study_of_the_page_is_sound() -> None:
    told = yaml.safe_load(PAGE.partition("```yaml\n")[2].partition("```")[0])
    study = load_study(told)
    assert check(study).count() == 4
    assert {name: data.variant for name, data in study.sets.items()} == {"source_hospital": "a", "target_hospital": "b"}


def test_attention_without_masks_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    cases = make_store(tmp_path / "s", masked=False)
    cases.split = lambda *_: [0, 1]  # type: ignore[method-assign, assignment, return-value]
    told = {
        "name": "x",
        "data": {"source": "store", "path": str(tmp_path / "s"), "size": 32, "modalities": ["derm"]},
        "encoder": {"name": "test_resnet"},
        "curriculum": {"tasks": ["rotation"], "length": [1, 1]},
        "train": {"batch": 8},
        "downstream": {"linear": {}, "attention": {"stride": 8, "size": 64}},
    }
    study = load_study(told)
    with pytest.raises(UserError, match=r"^downstream.attention: the store at .* has no masks; prepare it"):
        check_cases(study, check(study), {"data": cases})


@pytest.mark.parametrize(
    ("encoder", "config", "said"),
    [
        ("resnet10t", {}, r"the map of resnet10t at 64 px is 2 x 2, and 6 x 6 is the least; set stride: 8, or a size"),
        ("resnet10t", {"stride": 16}, r"the map of resnet10t at 64 px is 4 x 4, and 6 x 6 is the least"),
        ("test_vit", {}, r"the map of test_vit at 64 px is 4 x 4, and 6 x 6 is the least"),
        ("test_vit", {"stride": 8}, r"stride: 'test_vit' keeps no finer map"),
        ("resnet10t", {"stride": 8}, ""),
        ("resnet10t", {"size": 192}, ""),
        ("test_vit", {"size": 96}, ""),
    ],
)
def test_a_map_that_is_too_coarse_is_refused_before_anything_is_trained(
    encoder: str, config: dict[str, Any], said: str
) -> None:
    told = {
        "name": "x",
        "data": {"domain": "chest", "modalities": ["xray"], "cases": 60, "size": 64},
        "encoder": {"name": encoder},
        "curriculum": {"tasks": ["rotation"], "length": [1, 1]},
        "downstream": {"linear": {}, "attention": config},
        "objective": {"protocol": "linear", "label": "finding"},
    }
    study = load_study(told)
    if not said:
        assert check(study).count() == 1
        objective = {"protocol": "attention", "metric": "occlusion", "label": "finding"}
        assert check(load_study({**told, "objective": objective})).count() == 1, "it may be what a search goes by"
        return
    with pytest.raises(UserError, match=rf"^downstream\.attention: {said}"):
        check(study)
