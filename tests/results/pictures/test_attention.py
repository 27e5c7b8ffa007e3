"""Accuracy against attention: who is not beaten, how the two go together, and what is drawn."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dermsearch.papers.published import published_rows
from dermsearch.results.papers.picture import heading, picture
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.pictures.attention import attention_figure, judges_of, named, pairs, places, related, unbeaten
from dermsearch.results.tables.schema import Results, build


@pytest.mark.parametrize(
    ("x", "y", "front"),
    [
        ([1, 2, 3], [3, 2, 1], [0, 1, 2]),
        ([1, 2, 3], [1, 2, 3], [2]),
        ([1, 1, 0], [1, 1, 5], [2, 0, 1]),  # of two alike none beats the other
        ([2, 2, 1], [1, 3, 3], [1]),
    ],
)
def test_those_that_none_beats(x: list[float], y: list[float], front: list[int]) -> None:
    assert unbeaten([*zip(x, y, strict=True)]) == front


def test_how_two_scores_go_together() -> None:
    """The paper's 22 pre-trained rows: 0.485, which rests on one of them."""
    told: dict[str, dict[str, float]] = {}
    for row in published_rows("aiseeme_table2"):
        if row["row"] not in ("ImageNet", "Scratch") and row["column_metric"].endswith("percent"):
            told.setdefault(row["row"], {})[row["column_metric"]] = float(row["value"])
    both = [(v["AIL percent"], v["Validation Acc percent"]) for v in told.values() if len(v) >= 2]
    found = related(both)
    assert found.value == pytest.approx(0.485, abs=5e-4) and found.curricula == 22
    assert found.low is not None and found.high is not None and found.low < 0.485 < found.high
    assert str(found).startswith("r = 0.48 [") or str(found).startswith("r = 0.49 [")
    assert related([(i, i) for i in range(3)]).value is None and related([(1, i) for i in range(5)]).value is None
    assert str(related([])) == "0 curricula: no correlation"
    assert related([(i, 2 * i) for i in range(5)]).low == pytest.approx(1)


def with_attention(results: Results) -> Results:
    """The same study, whose attention was judged as well: what is more accurate attends less."""
    rows = results.scores.to_pylist()
    objective = results.study["objective"]
    mine = [r for r in rows if r["protocol"] == objective["protocol"] and r["metric"] == objective["metric"]]
    for row in mine:
        for metric, value in (("ail", 1 - row["value"]), ("occlusion", row["value"]), ("area", 0.25)):
            told = {"value": value, "ci_low": value - 0.02, "ci_high": value + 0.02}
            rows.append({**row, **told, "protocol": "attention", "metric": metric})
    return Results(results.folder, results.study, {**results.tables, "scores": build("scores", rows)})


def test_a_panel_for_each_share(make_study: Any, tmp_path: Path) -> None:
    results = with_attention(make_study(seeds=(0, 1)))
    assert judges_of(results) == [("attention", "data")] and set(pairs(results)) == {"ail", "occlusion"}
    paths = attention_figure(results, tmp_path / "attention")
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", paths[1].read_text("utf-8")))
    assert (
        "r = -1.00 [-1.00, -1.00] over 15 curricula" in text
        and "r = 1.00 [1.00, 1.00]" in text
        and "an even map" in text
    )


def drawn_of(results: Results, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure itself, as it is before it is written."""
    kept: list[Figure] = []
    monkeypatch.setattr("dermsearch.results.pictures.attention.save", lambda figure, *_: kept.append(figure) or [])
    attention_figure(results, "attention")
    return kept[0]


@pytest.mark.parametrize(("longest", "named_all"), [(2, False), (1, True)])
def test_a_reader_finds_the_curricula_by_their_names(make_study: Any, longest: int, named_all: bool) -> None:
    """Of few all; of many those that none beats, no pre-training and the best task alone."""
    both = pairs(with_attention(make_study(longest=longest)))["occlusion"]
    front = {str(key.curriculum) for i, key in enumerate(both) if i in unbeaten(places(both))}
    best = {"moco_v2", "no pre-training"}
    every = {str(key.curriculum) for key in both}
    assert len(both) == (4 if named_all else 10)
    found = {str(list(both)[i].curriculum) for i in named(both)}
    assert found == (every if named_all else front | best) and (named_all or found < every)


def test_names_stand_over_no_point_and_no_other_name(make_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight curricula whose points lie close together, and all of which have one."""
    names = ("relative_location", "moco_v2", "odc", "simclr", "rotation", "ibot", "colorme")
    values = {name: 0.6 + 0.005 * (3 * i % 7) for i, name in enumerate(names)} | {"no pre-training": 0.52}
    figure = drawn_of(with_attention(make_study(tasks=names, longest=1, values=values)), monkeypatch)
    figure.draw_without_rendering()
    for ax in figure.axes:
        texts = [text for text in ax.texts if "even" not in text.get_text()]
        boxes = [Text.get_window_extent(text) for text in texts]  # without the line to its point
        points = [line.get_xydata()[0] for line in ax.lines if line.get_marker() in ("o", "s")]
        assert len(boxes) == len(points) == 8
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert not any(box.contains(*ax.transData.transform(point)) for box in boxes for point in points)
        assert all(ax.bbox.containsx(x) and ax.bbox.containsy(y) for box in boxes for x, y in box.corners())


def test_a_title_that_is_too_long_goes_on_below(make_study: Any, tmp_path: Path) -> None:
    results = make_study(study={"name": "curriculum_siim-quick"})
    table = fill(with_attention(results), FORMS["aiseeme_table2_both"])
    text = re.findall(r"<text[^>]*>([^<]*)</text>", picture(table, tmp_path / "t")[1].read_text("utf-8"))
    first = next(line for line in text if line.startswith("AISEEME D4, Table 2"))
    assert "curriculum_siim-quick" not in first and heading(table) in f"{first} {text[text.index(first) + 1]}"


def test_nothing_is_drawn_without_it(make_study: Any, tmp_path: Path) -> None:
    assert attention_figure(make_study(), tmp_path / "attention") == []


def test_the_papers_rows_are_all_in_the_table() -> None:
    (section,) = FORMS["aiseeme_table2_both"].sections
    printed = {row["row"] for row in published_rows("aiseeme_table2")}
    assert {line.printed for line in section.lines} == printed and len(section.lines) == len(printed) == 24
    columns = {row["column_metric"] for row in published_rows("aiseeme_table2")}
    assert {c.printed for c in section.columns if c.printed} <= columns
    assert np.unique([line.identity for line in section.lines]).size == 24
