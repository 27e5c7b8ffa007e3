"""Table 2 of Groeger et al.: every printed cell has its line, and a study of two networks fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.papers.published import published_rows
from dermsearch.results.papers.groeger import DATA, TABLE_2, family
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill
from dermsearch.results.tables.schema import SCHEMAS, Results, build, load, write
from dermsearch.study.load import load_study

ROOTS = ("resnet10t random", "resnet10t imagenet", "vit_tiny_patch16_224 random")
WORTH = {ROOT_CURRICULUM: 0.3, "dino": 0.5, "colorme": 0.4}
FIT = 0.1  # what fine-tuning adds


def test_every_printed_cell_is_in_the_table() -> None:
    printed = {(row["row"], row["column_metric"]) for row in published_rows("groeger_table2")}
    ours = {(e.printed, c.printed) for s in TABLE_2.sections for e in s.lines for c in s.columns if e.printed}
    assert printed == ours and FORMS["groeger_table2"] is TABLE_2


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_study_fills_it(quick: bool) -> None:
    study = load_study("groeger", [], quick)
    judged = {(entry.protocol, entry.data) for entry in study.entries.values()}
    assert {(c.protocol, c.data) for s in TABLE_2.sections for c in s.columns} <= judged
    trained = {f"{family(root.name)}: {task}" for root in study.encoder.roots for task in study.curriculum.tasks}
    assert {e.identity for e in TABLE_2.sections[1].lines[1:]} <= trained
    assert study.objective.labelled == "all" and study.published == "groeger_table2"


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two networks, one with weights of others beside random ones; two tasks, three judges, two protocols."""
    stages, scores = [], []
    for root in ROOTS:
        for curriculum in WORTH:
            key = f"{root}/{curriculum}"
            if curriculum != ROOT_CURRICULUM:
                own: dict[str, Any] = {"key": key, "parent": f"{root}/{ROOT_CURRICULUM}", "depth": 1, "kind": "pretext"}
                own |= {"root": root, "curriculum": curriculum, "task": curriculum, "settings": "{}", "seed": 0}
                stages.append(own | {"status": "done"})
            for number, data in enumerate(DATA.values()):
                for protocol in ("linear", "finetune"):
                    value = WORTH[curriculum] + 0.01 * number + 0.02 * ROOTS.index(root) + FIT * (protocol != "linear")
                    row = {"stage": key, "curriculum": curriculum, "root": root, "seed": 0, "protocol": protocol}
                    row |= {"data": data, "labelled": "all", "draw": 0, "split": "val", "label": "diagnosis"}
                    row |= {"metric": "macro_f1", "class": "", "n": 50, "groups": "patients"}
                    scores.append(row | {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1})
    for name in SCHEMAS:
        write(build(name, {"stages": stages, "scores": scores}.get(name, [])), tmp_path / "tables" / f"{name}.arrow")
    objective = {"mean": [f"linear@{data}" for data in DATA.values()], "metric": "macro_f1", "label": "diagnosis"}
    objective["labelled"] = "all"
    told = {"name": "groeger", "objective": objective, "encoder": {"weights": {"choice": [None, "imagenet"]}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(told))
    return load(tmp_path)


def test_task_and_network_are_told_apart(results: Results) -> None:
    found = {
        (section.title, entry.title): [
            (cell.printed, cell.value and round(cell.value.mean, 1)) for cell in entry.cells
        ]
        for section, entries in fill(results, TABLE_2).blocks
        for entry in entries
    }  # fmt: skip
    linear, tuned = "linear evaluation", "fine-tuned"
    assert found[linear, "ImageNet"] == [("51.0", 32.0), ("49.7", 33.0), ("54.1", 34.0)]  # not the random ones
    assert found[linear, "DINO"] == [("46.7", 54.0), ("44.2", 55.0), ("57.2", 56.0)]
    assert found[linear, "ColorMe"][0] == ("44.8", 42.0), "the better of the two roots of that network"
    assert found[linear, "SimCLR"][0] == ("37.0", None)
    assert found[linear, "resnet: DINO"][0] == ("", 52.0) and found[linear, "vit: ColorMe"][0] == ("", 44.0)
    assert found[tuned, "DINO"] == [("", 64.0), ("", 65.0), ("", 66.0)]
    assert found[tuned, "iBOT"][0] == ("73.9", None)
