"""What several judges and a pool cannot be, through the command: one sentence, exit code 2, no tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml

TWO = {"classes": {"NEV": 3, "SK": 1}}
SETS: dict[str, Any] = {
    "pool": {"source": "mix", "mix": ["ours", "theirs"], "without": ["ham"], "size": 32},
    "ours": {"cases": 40, "size": 32},
    "theirs": {"cases": 40, "size": 32, "seed": 5},
    "ham": {"cases": 40, "size": 32, "seed": 7},
    "pad": {"cases": 40, "size": 32, "seed": 8, "variant": TWO},
}


def run(folder: Path, line: str, settings: dict[str, Any], **sets: Any) -> Any:
    told = {
        "name": "wrong",
        "data": SETS | {name: {**SETS[name], **changes} for name, changes in sets.items()},
        "encoder": {"name": "test_resnet", "branches": "shared"},
        "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]},
        "train": {"epochs": 1, "batch": 16},
        "downstream": {line: settings},
        "objective": {"protocol": line, "label": "mean"},
        "compute": {"engine": "inline"},
        "logging": [],
    }
    (folder / "wrong.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return warm.run(["run", "wrong.yaml"], folder, timeout=400)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "settings", "sets", "said"),
    [
        (
            "linear@ham",
            {},
            {"ham": {"modalities": ["derm", "clinic"]}},
            "data.ham.modalities: the encoders see derm images only, not clinic",
        ),
        (
            "dann@pad",
            {"source": "ham"},
            {},
            "downstream.dann@pad: must have the labels of 'ham', with the same classes, not diagnosis: BCC",
        ),
        (
            "linear@ham",
            {},
            {"pool": {"mix": ["ours"], "without": ["pad"]}, "pad": {"seed": 0, "cases": 60, "variant": None}},
            "data.pool: nothing is left to mix: every image is in a store of --without",
        ),
        (
            "linear@pad",
            {"labelled": [300]},
            {},
            "downstream.linear@pad.labelled: must be at most 27, the training cases of the largest class, not 300",
        ),
        (
            "linear@pad",
            {},
            {"pad": {"variant": {"classes": {"NEV": 1, "nevus": 2}}}},
            "data.pad.variant.classes: 'nevus' is no diagnosis of built-in cases; choose from: BCC, NEV,",
        ),
    ],
    ids=["modality", "classes", "empty pool", "too many labels", "no class"],
)
def test_it_is_one_sentence(line: str, settings: Any, sets: Any, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, line, settings, **sets)
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert re.fullmatch(rf"dermsearch: wrong\.yaml:\d+: {re.escape(said)}.*", last), done.stderr
    assert not (tmp_path / "results" / "wrong").exists(), "its name is not taken by what never began"
    assert not (tmp_path / "results" / "wrong" / "tables").exists()
