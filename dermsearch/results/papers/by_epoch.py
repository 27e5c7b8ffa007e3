"""A paper's table of epochs, with those of a study's stages beside them: a section for each variant of the task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from dermsearch.papers.published import published_rows
from dermsearch.results.papers.predicted import ACCURACY
from dermsearch.results.papers.table import Cell, Entry, Filled, PaperTable, TableColumn, Value
from dermsearch.results.tables.schema import Results

MOST = 10  # epochs of a stage that are all shown; of more, those that the paper prints and the last
Epochs = Mapping[int, Sequence[Mapping[str, Any]]]  # rows of the table by epoch, one a seed


def fill_epochs(results: Results, form: PaperTable) -> Filled:
    """The form has one section, whose lines are epochs of one variant; the study's other variants follow it."""
    (section,) = form.sections
    ((task, setting),) = form.telling.items()
    printed = {(row["row"], row["column_metric"]): row["value"] for row in published_rows(form.name)}
    told = variants(results, task, setting)
    own = section.lines[0].identity.partition("=")[2]
    blocks = []
    for value in sorted({own, *told}, key=lambda value: (value != own, value)):
        epochs = told.get(value, {})
        lines = {line.title: line for line in section.lines} if value == own else {}
        named = {int(title.split()[-1]) for title in lines}
        numbers = sorted(named | set(shown(epochs, {int(line.title.split()[-1]) for line in section.lines})))
        entries = []
        for n in numbers:
            at = lines[f"epoch {n}"].printed if n in named else ""
            rows = epochs.get(n, ())
            cells = tuple(
                Cell(c, printed.get((at, c.printed), ""), "", value_of(c, rows), "", c.split) for c in section.columns
            )
            done = any(each.value for each in cells)
            entries.append(Entry(f"epoch {n}", cells, "done" if done else "not run"))
        title = section.title if value == own else f"{setting} {float(value):g}"
        blocks.append((replace(section, title=title), tuple(entries)))
    study = str(results.study.get("name") or results.folder.name)
    notes = (
        f"paper: as printed, {form.data}. here: study {study}, its own training and validation images.",
        "Other data, another split or other settings: the two stand beside each other, not against.",
        *form.notes,
        *(f"Caution: {text}." for text in results.scores["caveats"].unique().to_pylist() if text),
    )
    return Filled(form, study, tuple(blocks), {}, {}, notes)


def variants(results: Results, task: str, setting: str) -> Mapping[str, Epochs]:
    """By the value of a setting the epochs of a task that came first, over all seeds."""
    stages = results.stages.to_pylist()
    own = {s["key"]: json.loads(s["settings"]) for s in stages if s["task"] == task and s["depth"] == 1}
    found: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for row in results.epochs.to_pylist():
        if (told := own.get(row["stage"])) is not None:
            value = str(told.get("config", told).get(setting, ""))
            found.setdefault(value, {}).setdefault(row["epoch"], []).append(row)
    return found


def shown(epochs: Epochs, printed: set[int]) -> list[int]:
    """The epochs of a stage that have a line."""
    return [n for n in epochs if len(epochs) <= MOST or n in printed or n == max(epochs)]


def value_of(column: TableColumn, rows: Sequence[Mapping[str, Any]]) -> Value | None:
    """The mean over seeds; None where any of them lacks it."""
    held = column.split == "val"
    if column.metric == ACCURACY:
        values = [json.loads(row["val_parts" if held else "parts"] or "{}").get(ACCURACY) for row in rows]
    else:
        values = [row["val_loss" if held else "loss"] for row in rows]
    known = [value for value in values if value is not None]
    return Value(column.scale * fmean(known), None, None, len(known), 0) if rows and len(known) == len(rows) else None
