"""Tables 4 to 6: every printed cell has its line, and a study's fits stand beside them."""

from __future__ import annotations

import pytest

from dermsearch.papers.published import published_rows
from dermsearch.results.papers.aiseeme_uda import DATA, METHODS, UDA
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.study.load import load_study


@pytest.mark.parametrize("form", UDA, ids=lambda form: form.name)
def test_the_papers_cells_are_all_in_the_table(form) -> None:
    printed = {row["row"] for row in published_rows(form.name)}
    lines = [line for section in form.sections for line in section.lines]
    assert {line.printed for line in lines} - {""} == printed and FORMS[form.name] is form
    assert len({(line.protocol, line.data) for line in lines}) == len(lines)
    columns = {column.printed for section in form.sections for column in section.columns} - {""}
    assert columns == {row["column_metric"] for row in published_rows(form.name)}


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_study_fills_them(quick: bool) -> None:
    study = load_study("uda_made", [], quick)
    there = {(entry.protocol, entry.data) for entry in study.entries.values()}
    for form in UDA:
        assert {(line.protocol, line.data) for s in form.sections for line in s.lines if line.printed} <= there
    assert set(DATA.values()) <= set(study.sets) and set(METHODS.values()) <= {protocol for protocol, _ in there}
    assert all(entry.data != "made" for entry in study.entries.values())  # nothing is judged on made cases
    if quick:
        a, b = (study.sets[name] for name in ("chexpert", "chestxray14"))
        assert (a.variant, b.variant) == ("a", "b") and a.seed != b.seed  # no patient is in both
