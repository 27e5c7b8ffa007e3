"""The leaderboard as CSV, Markdown, LaTeX and JSON."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from dermsearch.results.board.about import About
from dermsearch.results.board.formats import COLUMNS, FORMATS
from dermsearch.results.board.leaderboard import leaderboard


@pytest.fixture
def rows(make_study: Any) -> list[Any]:
    return leaderboard(make_study(seeds=(0, 1), failed={"odc": "failed"}))


def test_csv_holds_every_row_and_number(rows: list[Any]) -> None:
    found = list(csv.DictReader(io.StringIO(FORMATS["csv"](rows))))
    assert tuple(found[0]) == COLUMNS and [row["curriculum"] for row in found] == [row.name for row in rows]
    for told, row in zip(found, rows, strict=True):
        assert told["score"] == ("" if row.score is None else f"{100 * row.score:.4f}")
        assert told["to_none"] == ("" if row.to_none is None else f"{100 * row.to_none.value:.4f}")
    assert {row["status"] for row in found} > {"failed"}


def test_json_can_be_read(rows: list[Any]) -> None:
    assert len(json.loads(FORMATS["json"](rows))["rows"]) == len(rows)


def test_markdown_has_a_line_for_each_row_and_its_notes(rows: list[Any]) -> None:
    text = FORMATS["markdown"](rows)
    assert sum(line.startswith("|") for line in text.splitlines()) == len(rows) + 2
    assert "95 % interval" in text and {line.count(" | ") for line in text.splitlines() if line.startswith("| ")} == {6}


def test_latex_escapes_what_it_must(rows: list[Any]) -> None:
    lines = FORMATS["latex"](rows).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(rows) and all(line.count("&") == 6 and line.endswith(r"\\") for line in body)
    assert any(r"relative\_location $\to$ moco\_v2" in line for line in body)
    assert not any("_" in line.replace(r"\_", "") for line in body)


def test_latex_takes_any_reason_why_something_failed(rows: list[Any]) -> None:
    error = r"KeyError: {'a': 1} ^ ~ \x $5"
    text = FORMATS["latex"]([replace(row, error=error) if row.score is None else row for row in rows])
    assert r"KeyError: \{'a': 1\} \textasciicircum{} \textasciitilde{} \textbackslash{}x \$5" in text


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_their_notes_name_chance_cases_and_data(form: str, rows: list[Any]) -> None:
    known = About(0.5, "1,501 cases of ", " of ham10000")
    told = "balanced accuracy of diagnosis (chance 50.0 %), protocol knn, 1,501 cases of split val of ham10000"
    assert told in FORMATS[form](rows, known)
    assert json.loads(FORMATS["json"](rows, known))["about"]["chance"] == 0.5
