"""The figure of learning curves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from dermsearch.results.pictures.curves import curves_figure, draw, kind_of, kinds, panels_of
from dermsearch.results.tables.schema import Results, build


def epochs(
    stage: str, curriculum: str, losses: list[float], held: bool = False, task: str = ""
) -> list[dict[str, Any]]:
    own = {"stage": stage, "curriculum": curriculum, "task": task or curriculum.split(" > ")[-1], "seed": 0}
    return [
        {**own, "epoch": n, "loss": loss, "parts": json.dumps({"accuracy": 0.1 * n} if task != "odc" else {}),
         "val_loss": loss + 1 if held else None,
         "val_parts": json.dumps({"accuracy": 0.05 * n}) if held else None}
        for n, loss in reversed(list(enumerate(losses, 1)))
    ]  # fmt: skip


ROWS = [
    *epochs("a", "moco_v2", [5, 4, 3], held=True),
    *epochs("b", "odc > moco_v2", [4, 3.5]),
    *epochs("c", "odc", [2, 1], task="odc"),
    *epochs("d", "odc", [9, 8], task="finetune"),
    *epochs("e", "rotation", [1]),
]


def test_a_panel_for_each_task_and_what_it_measures() -> None:
    panels = panels_of(ROWS)
    assert list(panels) == [("moco_v2", "loss"), ("moco_v2", "accuracy (%)"), ("odc", "loss"), ("finetune", "loss"),
                            ("finetune", "accuracy (%)")]  # fmt: skip
    first, second = panels["moco_v2", "loss"]
    assert (first.place, first.epochs, first.values, first.held) == (1, [1, 2, 3], [5, 4, 3], [6, 5, 4])
    assert (second.place, second.held) == (2, []) and panels["finetune", "loss"][0].place == 0
    assert panels["moco_v2", "accuracy (%)"][0].values == pytest.approx([10, 20, 30])
    assert panels["moco_v2", "accuracy (%)"][0].held == pytest.approx([5, 10, 15])
    assert panels["finetune", "accuracy (%)"][0].held == [], "of what had no validation images"


def test_colours_tell_settings_where_all_tasks_come_first() -> None:
    rows = [*epochs("a", "odc", [3, 2]), *epochs("b", "odc", [3, 2]), *epochs("c", "simclr", [3, 2])]
    panels = panels_of(rows, {"a": "weight=10", "b": "weight=2"})
    names = kinds(panels)
    assert [name for _, name in names.values()] == ["SimCLR", "weight=2", "weight=10"]
    assert len({colour for colour, _ in names.values()}) == 3
    assert [kind_of(line, names) for line in panels["odc", "loss"]] == ["weight=10", "weight=2"]
    assert kind_of(panels["simclr", "loss"][0], names) == ""
    later = panels_of([*rows, *epochs("d", "simclr > odc", [2, 1])], {"a": "weight=10", "b": "weight=2"})
    assert [name for _, name in kinds(later).values()] == ["as first task", "as second task"]
    fitted = panels_of([*epochs("d", "simclr > odc", [2, 1]), *epochs("e", "odc", [2, 1], task="finetune")])
    assert [name for _, name in kinds(fitted).values()] == ["as second task", "fitted to labels"], "it is no first task"


def test_it_is_drawn_and_told(make_study: Any, tmp_path: Path) -> None:
    study = make_study()
    results = Results(study.folder, study.study, {**study.tables, "epochs": build("epochs", ROWS)})
    _, svg = curves_figure(results, tmp_path / "curves")
    text = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text("utf-8"))
    assert {"MoCo v2", "ODC", "fine-tuning", "as first task", "as second task", "on validation images"} <= set(text)
    assert curves_figure(study, tmp_path / "none") == [], "no stage has epochs"


def test_epochs_are_whole() -> None:
    drawn = Figure().add_axes((0, 0, 1, 1))
    lines = panels_of(ROWS)["odc", "loss"]
    draw(drawn, "odc", "loss", lines, kinds({("odc", "loss"): lines}))
    assert set(drawn.get_xticks()) >= {1, 2} and not any(tick % 1 for tick in drawn.get_xticks())
