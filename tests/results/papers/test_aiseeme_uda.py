"""Tables 4 to 6: every printed cell has its line, and a study's fits stand beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dermsearch.papers.published import published_rows
from dermsearch.results.papers.aiseeme_uda import DATA, METHODS, UDA
from dermsearch.results.papers.files import write_files
from dermsearch.results.papers.picture import picture
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.tables.schema import Results, build
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


def judged(results: Results, values: dict[tuple[str, str], float]) -> Results:
    """The same study, whose root was fitted and judged on other data sets too: by (fit, data set)."""
    rows = results.scores.to_pylist()
    root = next(r for r in rows if not r["class"] and r["metric"] == "balanced_accuracy" and r["split"] == "val")
    assert root["stage"].startswith("root")
    for (fit, data), value in values.items():
        told = {"value": value, "ci_low": value - 0.02, "ci_high": value + 0.02, "label": "finding"}
        rows.append({**root, **told, "protocol": fit, "data": data})
    return Results(results.folder, results.study, {**results.tables, "scores": build("scores", rows)})


def test_measured_stands_beside_printed(make_study: Any) -> None:
    values = {("source_only", "chexpert"): 0.61, ("adabn", "chexpert"): 0.7, ("dcan", "chestxray14_from_chexpert"): 0.5}
    found = fill(judged(make_study(), values), UDA[0])
    cells = {
        (section.title, entry.title): (entry.cells[0].printed, entry.cells[0].value and entry.cells[0].value.mean)
        for section, entries in found.blocks
        for entry in entries
    }
    assert len(found.blocks) == 4
    assert cells["Synthetic to CheXpert", "no alignment"] == ("63.31", pytest.approx(61))
    assert cells["Synthetic to CheXpert", "AdaBN"] == ("", pytest.approx(70))
    assert cells["Synthetic to CheXpert", "our alignment"] == ("73.98", None)
    assert cells["ChestXpert to ChestX-ray8", "dcan alignment"] == ("62.04", pytest.approx(50))
    assert ("Synthetic to CheXpert", "DANN") not in cells  # neither printed nor measured


@pytest.mark.parametrize("form", UDA, ids=lambda form: form.name)
def test_they_are_written_in_every_form(form, make_study: Any, tmp_path: Path) -> None:
    """Sections on the target itself have fewer columns than the others."""
    found = fill(judged(make_study(), {("source_only", "chexpert"): 0.61}), form)
    for path in write_files(found, tmp_path / "table") + picture(found, tmp_path / "table"):
        assert path.stat().st_size > 500, path
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and any("61.0" in line for line in lines)
    rows = [line for line in (tmp_path / "table.tex").read_text().splitlines() if "& paper" in line or "& here" in line]
    assert len({line.count("&") for line in rows}) == 1
