"""Tables 2 and 3 of Aggarwal: every printed cell has its line, and a study over the weight fills them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.papers.published import published_rows
from dermsearch.results.papers.aggarwal import JOINT, TABLE_2, TABLE_3
from dermsearch.results.papers.files import write_files
from dermsearch.results.papers.picture import picture
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.tables.schema import SCHEMAS, Results, build, load, write
from dermsearch.study.load import load_study

WORTH = {"0.0": 0.6, "0.5": 0.7}  # accuracy in the last epoch, and AUC


@pytest.mark.parametrize("form", [TABLE_2, TABLE_3], ids=lambda form: form.name)
def test_every_printed_cell_is_in_the_table(form: Any) -> None:
    printed = {(row["row"], row["column_metric"]) for row in published_rows(form.name)}
    (section,) = form.sections
    ours = {(e.printed, c.printed) for e in section.lines for c in section.columns if e.printed and c.printed}
    assert printed == ours and FORMS[form.name] is form


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_study_fills_them(quick: bool) -> None:
    study = load_study("aggarwal", [], quick)
    weights = study.curriculum.tasks[JOINT]["weight"]["choice"]
    wanted = {line.identity.partition("=")[2] for line in TABLE_3.sections[0].lines if line.identity.startswith(JOINT)}
    assert {str(weight) for weight in weights} == wanted and "simclr" in study.curriculum.tasks
    assert study.published == (TABLE_2.name, TABLE_3.name) and "majority" in study.downstream
    assert study.curriculum.tasks[JOINT]["patience"] > 0, "or nothing is known of validation images"


def epoch(stage: str, weight: str, seed: int, n: int) -> dict[str, Any]:
    own = {"stage": stage, "curriculum": JOINT, "root": "", "task": JOINT, "seed": seed, "epoch": n}
    accuracy = WORTH[weight] - 0.01 * (12 - n) + 0.02 * seed
    own |= {"loss": 3 - 0.1 * n + seed, "val_loss": 4 - 0.1 * n, "parts": json.dumps({"accuracy": accuracy})}
    return own | {"val_parts": json.dumps({"accuracy": accuracy - 0.2})}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two weights, two seeds, twelve epochs."""
    stages, epochs, scores = [], [], []
    for weight, worth in {"": 0.5, **WORTH}.items():
        for seed in (0, 1):
            key = f"{weight}/{seed}"
            if weight:
                own: dict[str, Any] = {"key": key, "parent": f"/{seed}", "depth": 1, "kind": "pretext", "root": ""}
                told = json.dumps({"config": {"weight": float(weight)}, "train": {}})
                own |= {"curriculum": JOINT, "task": JOINT, "settings": told, "seed": seed, "status": "done"}
                stages.append(own)
                epochs += [epoch(key, weight, seed, n) for n in range(1, 13)]
            row = {"stage": key, "curriculum": JOINT if weight else ROOT_CURRICULUM, "root": "", "seed": seed}
            row |= {"protocol": "linear", "data": "data", "labelled": "all", "draw": 0, "split": "val", "class": ""}
            row |= {"label": "diagnosis", "metric": "auc", "n": 50, "groups": "patients", "value": worth}
            scores.append(row | {"ci_low": worth - 0.1, "ci_high": worth + 0.1})
    rows = {"stages": stages, "epochs": epochs, "scores": scores}
    for name in SCHEMAS:
        write(build(name, rows.get(name, [])), tmp_path / "tables" / f"{name}.arrow")
    objective = {"protocol": "linear", "metric": "auc", "label": "diagnosis"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "joint", "objective": objective}))
    return load(tmp_path)


def test_epochs_beside_those_of_the_paper(results: Results) -> None:
    found = {
        (section.title, entry.title): [
            (cell.printed, cell.value and round(cell.value.mean, 3), cell.value and cell.value.seeds)
            for cell in entry.cells
        ]
        for section, entries in fill(results, TABLE_2).blocks
        for entry in entries
    }  # fmt: skip
    own = TABLE_2.sections[0].title
    assert found[own, "epoch 10"] == [("2.276", 2.5, 2), ("92.04", 69.0, 2), ("2.309", 3.0, 2), ("88.72", 49.0, 2)]
    assert found[own, "epoch 20"] == [
        ("2.286", None, None),
        ("91.59", None, None),
        ("2.210", None, None),
        ("94.10", None, None),
    ]
    assert found["weight 0", "epoch 12"] == [("", 2.3, 2), ("", 61.0, 2), ("", 2.8, 2), ("", 41.0, 2)]
    assert [title for section, title in found if section == "weight 0"] == [f"epoch {n}" for n in (1, 5, 10, 12)]


def test_a_stage_without_validation_images_leaves_cells_empty(results: Results) -> None:
    rows = [row | {"val_loss": None, "val_parts": None} for row in results.epochs.to_pylist()]
    blind = Results(results.folder, results.study, {**results.tables, "epochs": build("epochs", rows)})
    (_, entries), *_ = fill(blind, TABLE_2).blocks
    assert [bool(cell.value) for cell in entries[0].cells] == [True, True, False, False]


def test_the_final_test(results: Results) -> None:
    (_, entries), = fill(results, TABLE_3).blocks  # fmt: skip
    found = {entry.title: [(c.printed, c.value and round(c.value.mean, 1)) for c in entry.cells] for entry in entries}
    assert found["joint, weight 0.5"] == [("2.204", None), ("94.05", None), ("", None), ("", 70.0)]
    assert found["cross-entropy alone, weight 0"][-1] == ("", 60.0) and found["no pre-training"][-1] == ("", 50.0)
    assert set(found) == {"joint, weight 0.5", "cross-entropy alone, weight 0", "no pre-training"}


@pytest.mark.parametrize("form", [TABLE_2, TABLE_3], ids=lambda form: form.name)
def test_they_are_written_and_drawn(form: Any, results: Results, tmp_path: Path) -> None:
    table = fill(results, form)
    _, text, _ = write_files(table, tmp_path / form.name)
    _, svg = picture(table, tmp_path / form.name)
    assert "**" + form.sections[0].title + "**" in text.read_text()
    drawn = svg.read_text()
    assert ("here, 95 % interval" in drawn) == (form is TABLE_3), "epochs have none"
