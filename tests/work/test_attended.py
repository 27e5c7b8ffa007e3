"""The picture of where classifiers look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from dermsearch.cli import data as commands
from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate.base import configure
from dermsearch.models.encoders import Encoders
from dermsearch.results.drawing import GREEN, VERMILION
from dermsearch.study.data import Data
from dermsearch.testing.small import make_store
from dermsearch.work.attended import attended, draw_attention, edged, heated, share_of
from dermsearch.work.eye import Eye
from dermsearch.work.found import by_turns

DATA = Data(domain="chest", modalities=("xray",), cases=60, size=64)


def test_a_row_for_each_image_and_a_column_for_each_classifier(tmp_path: Path) -> None:
    cases = open_cases(DATA, tmp_path)
    eye = Eye("0123456789", Encoders.random("test_resnet", ("xray",), "shared", 1), DATA)
    config = configure("attention", {"stride": 8, "c": 0.01})
    path = draw_attention(cases, eye, "finding", tmp_path / "a.png", 3, 0, config)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (12 + 18 + 3 * (128 + 8 + 18 + 12), 12 + 3 * (128 + 8 + 12), 3)
    top = 12 + 18
    frames = [[tuple(sheet[top + 166 * row, 12 + 148 * column]) for column in (1, 2)] for row in range(3)]
    shown = [s for s in np.split(sheet[top + 4 : top + 132], range(160, 600, 148), axis=1)][1:3]
    assert not np.array_equal(shown[0], shown[1]), "the stage looks elsewhere than random weights"
    said = {}
    for column, encoders in enumerate((Encoders.random("test_resnet", ("xray",), "shared", 0), eye.encoders)):
        rows = shown_rows(cases, 3)
        train = cases.split("train")
        found = attended(cases, replace(eye, encoders=encoders), "finding", train, rows, 0, config)
        said[column] = (found.predicted == cases.label("finding")[rows]).tolist()
    colours = {True: tuple(ImageColor.getrgb(GREEN)), False: tuple(ImageColor.getrgb(VERMILION))}
    assert frames == [[colours[said[column][row]] for column in (0, 1)] for row in range(3)]
    assert {*said[0], *said[1]} == {True, False}
    again = draw_attention(cases, eye, "finding", tmp_path / "b.png", 3, 0, config)
    assert np.array_equal(sheet, np.asarray(Image.open(again)))


def shown_rows(cases: CaseStore, count: int) -> np.ndarray:
    """The validation images that the picture shows."""
    rows = cases.split("val")
    return rows[by_turns(cases.label("finding")[rows], 0)][:count]


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
    assert share_of(amount, mask) == "60 % inside" and share_of(0 * amount, mask) == "no map"


def test_what_is_refused(tmp_path: Path) -> None:
    eye = Eye("0", Encoders.random("test_resnet", ("derm",), "shared", 1), Data(size=32))
    config = configure("attention", {"stride": 8})
    for name, message in (("a.jpg", "must end in .png"), ("a.png", "no training or no validation image of derm has")):
        with pytest.raises(UserError, match=message):
            draw_attention(make_store(tmp_path / name / "s"), eye, "diagnosis", tmp_path / name, 2, 0, config)


def test_the_first_label_is_asked_where_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = open_cases(DATA, tmp_path).folder, []
    monkeypatch.setattr("dermsearch.work.attended.draw_attention", lambda cases, eye, label, *more: asked.append(label))
    monkeypatch.setattr("dermsearch.work.eye.open_eye", lambda *given: None)
    for label in ("", "cardiomegaly"):
        commands.attention(str(folder), "01", label=label, store="x")
    assert asked == ["finding", "cardiomegaly"]
    with pytest.raises(UserError, match="--label: the cases have no label 'diagnosis'"):
        commands.attention(str(folder), "01", label="diagnosis", store="x")
