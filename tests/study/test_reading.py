"""What is allowed in the text of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from study.damage import STUDY, TEXT

from dermsearch.study.load import load_study


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.e-3", "0.001", "+1e-3", ".1e-2", "10e-4"])
def test_exponents_are_numbers(number: str) -> None:
    assert load_study("curriculum_three.yaml", [f"train.lr={number}"]).train.lr == 0.001


def test_a_study_survives_being_written_and_read(tmp_path: Path) -> None:
    overrides = ["train.lr=1e-3", "odc.clusters={choice: [8, 16]}", "search.seeds=[3, 1]", "description='no: 1e-3'"]
    study = load_study("curriculum_three.yaml", overrides)
    for again in ("first.yaml", "second.yaml"):
        file = tmp_path / again
        file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        assert load_study(str(file)) == study


def test_windows_line_ends_and_a_byte_order_mark_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_study(str(tmp_path / "study.yaml")) == load_study(str(STUDY))
