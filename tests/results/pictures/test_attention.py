"""Accuracy against attention: who is not beaten, how the two go together, and what is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from dermsearch.papers.published import published_rows
from dermsearch.results.papers.picture import heading, picture
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.pictures.attention import attention_figure, judge, pairs, related, unbeaten
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
    assert unbeaten(x, y) == front


def test_how_two_scores_go_together() -> None:
    """The paper's 22 pre-trained rows: 0.485, which rests on one of them."""
    told: dict[str, dict[str, float]] = {}
    for row in published_rows("aiseeme_table2"):
        if row["row"] not in ("ImageNet", "Scratch") and row["column_metric"].endswith("percent"):
            told.setdefault(row["row"], {})[row["column_metric"]] = float(row["value"])
    both = [(v["AIL percent"], v["Validation Acc percent"]) for v in told.values() if len(v) >= 2]
    found = related(*map(list, zip(*both, strict=True)))
    assert found.value == pytest.approx(0.485, abs=5e-4) and found.curricula == 22
    assert found.low is not None and found.high is not None and found.low < 0.485 < found.high
    assert str(found).startswith("r = 0.48 [") or str(found).startswith("r = 0.49 [")
    assert related([1, 2, 3], [1, 2, 3]).value is None and related([1] * 5, [1, 2, 3, 4, 5]).value is None
    assert related([0, 1, 2, 3, 4], [0, 2, 4, 6, 8]).low == pytest.approx(1)


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
    assert judge(results) == "attention" and set(pairs(results)) == {"ail", "occlusion"}
    paths = attention_figure(results, tmp_path / "attention")
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", paths[1].read_text("utf-8")))
    assert "r = -1.00 [-1.00, -1.00]" in text and "r = 1.00 [1.00, 1.00]" in text and "an even map" in text


def test_names_of_neighbours_do_not_collide(make_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two that none beats the left one is named on its left."""
    sides: list[list[str]] = []
    whole = Axes.set_title

    def told(ax: Axes, *given: Any, **how: Any) -> Any:
        sides.append([t.get_ha() for t in ax.texts if t.get_text() != "no pre-training" and "even" not in t.get_text()])
        return whole(ax, *given, **how)

    monkeypatch.setattr(Axes, "set_title", told)
    attention_figure(with_attention(make_study(seeds=(0, 1))), tmp_path / "attention")
    many, one = sides  # the shares fall with accuracy, and rise with it
    assert len(many) > 1 and many.count("right") == 1 and one == ["right"]


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
