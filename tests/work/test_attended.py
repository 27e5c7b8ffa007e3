"""The picture of where classifiers look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermsearch.data.open import open_cases
from dermsearch.errors import UserError
from dermsearch.evaluate.base import configure
from dermsearch.models.encoders import Encoders
from dermsearch.study.data import Data
from dermsearch.testing.small import make_store
from dermsearch.work.attended import draw_attention, edged, heated, share_of
from dermsearch.work.eye import Eye

DATA = Data(domain="chest", modalities=("xray",), cases=60, size=64)


def test_a_row_for_each_image_and_a_column_for_each_classifier(tmp_path: Path) -> None:
    cases = open_cases(DATA, tmp_path)
    eye = Eye("0123456789", Encoders.random("test_resnet", ("xray",), "shared", 1), DATA)
    config = configure("attention", {"stride": 8, "c": 0.01})
    path = draw_attention(cases, eye, "finding", tmp_path / "a.png", 3, 0, config)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (12 + 18 + 3 * (128 + 8 + 18 + 12), 12 + 3 * (128 + 8 + 12), 3)
    again = draw_attention(cases, eye, "finding", tmp_path / "b.png", 3, 0, config)
    assert np.array_equal(sheet, np.asarray(Image.open(again)))


def test_heat_and_edges() -> None:
    picture, amount, mask = np.full((4, 4, 3), 100.0), np.zeros((4, 4)), np.zeros((4, 4))
    amount[1, 1], mask[1:3, 1:3] = 2.0, 1
    hot = heated(picture, amount)
    assert (hot[0, 0] == 100).all() and hot[1, 1, 0] > 200 > 80 > hot[1, 1, 2]
    assert (heated(picture, 0 * amount) == 100).all() and (edged(picture, mask)[1, 1] == [0, 160, 255]).all()


def test_a_map_that_is_nowhere_has_no_share() -> None:
    mask = np.zeros((4, 4))
    mask[:2] = 1
    amount = np.ones((4, 4))
    amount[0, 0] = 5
    assert share_of(amount, mask) == "60 %" and share_of(0 * amount, mask) == "no map"


def test_what_is_refused(tmp_path: Path) -> None:
    eye = Eye("0", Encoders.random("test_resnet", ("derm",), "shared", 1), Data(size=32))
    config = configure("attention", {"stride": 8})
    for name, message in (("a.jpg", "must end in .png"), ("a.png", "no training or no validation image of derm has")):
        with pytest.raises(UserError, match=message):
            draw_attention(make_store(tmp_path / name / "s"), eye, "diagnosis", tmp_path / name, 2, 0, config)
