"""A paper's table with a study's numbers beside the printed ones. Which tables there are is data: see sm3_tables."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Any

import pyarrow.compute as pc

from dermsearch.curriculum import BASELINES, NO_WEIGHTS, RANDOM_WEIGHTS, Curriculum, titled
from dermsearch.metrics import MEAN_LABEL
from dermsearch.papers.published import published_rows
from dermsearch.results.board.intervals import NO_SPREAD, Spread, alike, interval
from dermsearch.results.board.leaderboard import Row, kind_of_interval, leaderboard
from dermsearch.results.drawing import chain, readable
from dermsearch.results.papers.predicted import ACCURACY, BASELINE, GAIN, Gain, Predictions, Quantity, gains
from dermsearch.results.tables.measure import Score, by_stage
from dermsearch.results.tables.schema import Results

# What a line may ask for that is no curriculum: weights that the study gives (such as ImageNet's), random ones, and
# either, for predictions that look at no image.
GIVEN, RANDOM, EITHER = "given weights", RANDOM_WEIGHTS, "any weights"
OTHER = ""  # in TableSection.takes: curricula that end in a task the paper does not vary
MARKS = "†‡§¶‖#*ab"
SPLITS = {"train": "training", "val": "validation", "test": "test"}
FINDINGS = ("audit: ", "header prints", "caption wrongly")  # how a note begins that finds something wrong


@dataclass(frozen=True)
class TableColumn:
    """One number of every line: where the paper prints it, and which row of the scores table it is."""

    heading: str
    printed: str  # the column of the CSV file; "" where the paper has none
    metric: str
    label: str
    cls: str = ""
    protocol: str = ""  # "": the line's, or else the study's
    split: str = ""  # "": test where it was judged, else validation
    scale: float = 100.0
    digits: int = 1
    chance: Callable[[int], float] | None = None  # by the number of cases, in the unit of the table
    data: str = ""  # the data set that judges; "": the line's
    cases: int = 0  # that the paper's chance level goes by, where it goes by any
    axis: str = ""  # of its picture, where the section has none for all columns
    log: bool = False
    part: bool = True  # is it a part of a whole, which ends at all of it?


@dataclass(frozen=True)
class TableLine:
    """One line: its row in the CSV file, and the curriculum that is the same here."""

    title: str
    printed: str  # "" where the paper has none
    identity: str  # as identity() spells it, or GIVEN, RANDOM, EITHER
    protocol: str = ""  # "": the study's
    data: str = ""  # the data set that judges; "": the objective's
    known: str = ""  # how well what was printed is known, a letter that the notes explain


@dataclass(frozen=True)
class TableSection:
    """Lines and columns under one heading."""

    title: str
    quantity: str  # of all columns, with its unit; "" where every column has its own
    lines: tuple[TableLine, ...]
    columns: tuple[TableColumn, ...]
    takes: tuple[str, ...] = (OTHER,)  # last tasks of curricula that the paper does not have


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper as data."""

    name: str  # of the CSV file
    title: str
    data: str  # that the printed numbers were measured on
    sections: tuple[TableSection, ...]
    telling: Mapping[str, str]  # task -> the setting that tells its variants apart
    notes: tuple[str, ...] = ()
    corrected: Callable[[], Mapping[tuple[str, str], float]] = dict  # by row and column, without what is wrong in print
    filled: Callable[[Results, PaperTable], Filled] | None = None  # of what is no score of a curriculum: how else
    family: Callable[[str], str] | None = None  # of the root that a line's curricula begin with: "vit: ibot"


@dataclass(frozen=True)
class Value:
    """A measured number in the unit of its column."""

    mean: float
    low: float | None  # 95 % interval
    high: float | None
    seeds: int
    n: int
    spread: Spread = NO_SPREAD  # of replicates, in its interval


@dataclass(frozen=True)
class Cell:
    """A printed number, a measured one, or both."""

    column: TableColumn
    printed: str  # as printed
    finding: str  # what is wrong with it
    value: Value | None
    protocol: str
    split: str
    corrected: str = ""  # what would be printed without the finding
    data: str = ""


@dataclass(frozen=True)
class Entry:
    """A line with its numbers."""

    title: str
    cells: tuple[Cell, ...]
    status: str  # done, or why nothing was measured: failed, not run, ...
    known: str = ""

    @property
    def measured(self) -> bool:
        return any(cell.value for cell in self.cells)

    @property
    def printed(self) -> bool:
        return any(cell.printed for cell in self.cells)


@dataclass(frozen=True)
class Filled:
    """The whole table, ready to be written and drawn."""

    form: PaperTable
    study: str
    blocks: tuple[tuple[TableSection, tuple[Entry, ...]], ...]
    marks: Mapping[str, str]  # finding -> its mark
    heads: Mapping[str, str]  # heading -> the finding that all its printed cells share
    notes: tuple[str, ...]

    def mark(self, cell: Cell) -> str:
        """The mark of a printed cell; a finding of the whole column is marked in its heading instead."""
        return "" if self.heads.get(cell.column.heading) == cell.finding else self.marks.get(cell.finding, "")

    def heading(self, column: TableColumn) -> str:
        """A column's heading, with the mark of a finding that all its printed cells share."""
        return column.heading + self.marks.get(self.heads.get(column.heading, ""), "")


class Measured:
    """The scores of a study, and which of its stages are which line."""

    def __init__(self, results: Results, form: PaperTable) -> None:
        self.rows: dict[str, list[Row]] = {}  # best first
        self.baselines: dict[str, list[Row]] = {name: [] for name in BASELINES}
        board = leaderboard(results)
        for row in board:
            of = self.rows if row.length else self.baselines
            of.setdefault(identity(row, form) if row.length else row.curriculum, []).append(row)
        given = bool((results.study.get("encoder") or {}).get("weights"))
        (root, fresh), (random, _) = (self._keys_of(results, name) for name in BASELINES)
        self.keys = {EITHER: root, GIVEN: root if given else (), RANDOM: random if given else root}
        if given and fresh:  # of several roots
            self.keys |= {GIVEN: tuple(key for key in root if key not in fresh), RANDOM: fresh}
        self.keys |= {name: rows[0].keys for name, rows in self.rows.items()}
        self.objective = board[0].measure
        asked = results.study.get("objective") or {}  # a mean over judges has no number of labels of its own
        self.labelled = self.objective.labelled or str(asked.get("labelled") or "all")
        self.protocol = self.objective.protocol if self.objective.protocol != "pairs" else "linear"
        columns = [column for section in form.sections for column in section.columns]
        lines = [line for section in form.sections for line in section.lines]
        data = {line.data or self.objective.data for line in lines} | {column.data for column in columns}
        wanted = {column.metric for column in columns}, {column.cls for column in columns}
        self.scores = self._scores(results, *wanted, {self.objective.data, *data})
        self.splits = {(protocol, split) for protocol, _, split, *_ in self.scores}
        self.predictions = Predictions(results, self.labelled)
        self.named = {column.label: column.cls for column in columns if column.cls}
        self._gains: dict[tuple[str, str], dict[str, Gain]] = {}
        self.lines = lines

    @staticmethod
    def _keys_of(results: Results, baseline: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The roots that are judged under a name, whoever judges; and those of several that have random weights."""
        rows = results.scores.filter(pc.field("curriculum") == baseline)
        roots = dict(zip(*(rows[name].to_pylist() for name in ("stage", "root")), strict=True))
        return (*roots,), tuple(key for key, root in roots.items() if (root or "").split()[-1:] == [NO_WEIGHTS])

    def _scores(
        self, results: Results, metrics: set[str], classes: set[str], data: set[str]
    ) -> dict[tuple[str, ...], dict[str, Score]]:
        """All scores that the form may show, by what is measured, then by stage."""
        wanted = pc.field("metric").isin(sorted(metrics)) & pc.field("class").isin(sorted(classes))
        wanted &= pc.field("labelled") == self.labelled
        wanted &= pc.field("data").isin(sorted(data))
        groups: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
        for stage, rows in by_stage(results, results.scores.filter(wanted & pc.is_finite(pc.field("value")))).items():
            for row in rows:
                what = tuple(row[name] for name in ("protocol", "data", "split", "label", "class", "metric"))
                groups.setdefault(what, {}).setdefault(stage, []).append(row)
        return {what: {key: Score.of(rows, key) for key, rows in stages.items()} for what, stages in groups.items()}

    def split(self, protocol: str) -> str:
        """Where a protocol's numbers are shown: on test cases where there are any, as papers do."""
        return "test" if (protocol, "test") in self.splits else "val"

    def cell(
        self,
        column: TableColumn,
        line: TableLine,
        printed: Mapping[tuple[str, str], dict[str, str]],
        corrected: Mapping[tuple[str, str], float] = MappingProxyType({}),
    ) -> Cell:
        """What the paper and the study say of one line and column."""
        paper, right = printed.get((line.printed, column.printed), {}), corrected.get((line.printed, column.printed))
        protocol = column.protocol or line.protocol or self.protocol
        split, data = column.split or self.split(protocol), column.data or line.data or self.objective.data
        value = self.value(column, line, protocol, data, split)
        shown = "" if right is None else f"{right:.{column.digits}f}"
        note = finding(paper.get("note", ""))
        return Cell(column, paper.get("value", ""), note, value, protocol, split, shown, data)

    def value(self, column: TableColumn, line: TableLine, protocol: str, data: str, split: str) -> Value | None:
        """What the study says, from its scores or its predictions."""
        if column.metric == GAIN:
            return self.gain(column, line, data, split)
        if column.metric == ACCURACY:
            scores = self.predictions.scores(protocol, data, split, self.quantity(column))
        else:
            scores = self.scores.get((protocol, data, split, column.label, column.cls, column.metric), {})
        own = [scores[key] for key in self.keys.get(line.identity, ()) if key in scores]
        fixed = line.identity in (GIVEN, RANDOM, EITHER) and alike(own)
        return value_of(own, NO_SPREAD if fixed else self.spread(scores), column) if own else None

    def quantity(self, column: TableColumn) -> Quantity:
        """What a column asks of predictions."""
        of = self.named if column.label == MEAN_LABEL else {column.label: self.named.get(column.label, "")}
        return Quantity(column.metric, of)

    def gain(self, column: TableColumn, line: TableLine, data: str, split: str) -> Value | None:
        """What a line is above the baseline that is judged on the same stages and data."""
        of = self.quantity(column)
        if (column.label, data) not in self._gains:
            lines = {
                f"{each.identity}/{each.protocol}": (
                    self.keys.get(each.identity, ()),
                    self.predictions.drawn(each.protocol or self.protocol, data, split, of),
                )
                for each in self.lines
                if (each.data or self.objective.data) == data and self.keys.get(each.identity)
            }
            reference = self.predictions.drawn(BASELINE, data, split, of)
            self._gains[column.label, data] = gains(lines, reference)
        found = self._gains[column.label, data].get(f"{line.identity}/{line.protocol}")
        if found is None:
            return None
        mean, scale = column.scale * found.value, column.scale
        low, high = (None if found.half is None else mean + side * scale * found.half for side in (-1, 1))
        return Value(mean, low, high, found.seeds, 0, found.spread)

    def spread(self, scores: Mapping[str, Score]) -> Spread:
        """How far replicates lie apart in one measure, over all curricula."""

        def of(lines: Iterable[list[Row]]) -> list[list[Score]]:
            return [[scores[key] for key in row.keys if key in scores] for rows in lines for row in rows]

        return Spread.of(of(self.rows.values()), of(self.baselines.values()))

    def status(self, line: TableLine) -> str:
        """Why a line that was not measured was not."""
        if self.keys.get(line.identity):
            return "not judged"
        return self.rows[line.identity][0].status if line.identity in self.rows else "not run"


def identity(row: Row, form: PaperTable) -> str:
    """A curriculum with the settings that tell its variants apart: "paired_contrast=sep_sep > pseudo_labels=tel"."""
    told = variants(row, form.telling)
    text = str(Curriculum(tuple(f"{task}={value}" if value else task for task, value in told)))
    return titled(form.family(row.root), text) if form.family else text


def variants(row: Row, telling: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each task of a curriculum with its telling setting, "" where it has none."""
    texts = [json.loads(text) for text in row.settings]
    asked = texts[-1] if texts else {}  # of a curriculum that was never begun: {"pseudo_labels.relation": "tel"}
    found = []
    for i, task in enumerate(row.tasks):
        own = texts[i] if i < len(texts) else {}
        name = telling.get(task, "")
        value = own.get("config", own).get(name, asked.get(f"{task}.{name}", ""))
        found.append((task, str(value)))
    return found


def value_of(scores: Sequence[Score], spread: Spread, column: TableColumn) -> Value:
    """The mean over the seeds with its interval, in the unit of the column."""
    low, high = (None if end is None else column.scale * end for end in interval(scores, spread, column.metric))
    mean = column.scale * fmean(score.value for score in scores)
    return Value(mean, low, high, len(scores), max(score.n for score in scores), spread)


def finding(note: str) -> str:
    """What a check found wrong with a printed cell, out of all that its note says."""
    start = re.search("|".join(FINDINGS), note)  # what a check found stands at the end, and may have semicolons
    return note[start.start() :].removeprefix("audit: ") if start else ""


def fill(results: Results, form: PaperTable) -> Filled:
    """The table of a paper with the numbers of a study in it."""
    if form.filled is not None:
        return form.filled(results, form)
    printed = {(row["row"], row["column_metric"]): row for row in published_rows(form.name)}
    corrected = form.corrected()
    measured = Measured(results, form)
    declared = {line.identity for section in form.sections for line in section.lines}
    blocks = []
    for section in form.sections:
        lines = [*section.lines, *extra(measured, form, section, declared)]
        entries = []
        for line in lines:
            cells = tuple(measured.cell(column, line, printed, corrected) for column in section.columns)
            done = any(cell.value for cell in cells)
            title = f"{line.title} ({line.known})" if line.known else line.title
            entries.append(Entry(title, cells, "done" if done else measured.status(line), line.known))
        kept = tuple(entry for entry in entries if entry.printed or entry.measured)
        if kept:
            blocks.append((section, kept))
    faced = [cell for _, entries in blocks for entry in entries for cell in entry.cells if cell.printed]
    marks = dict(zip(dict.fromkeys(cell.finding for cell in faced if cell.finding), MARKS, strict=False))
    study = str(results.study.get("name") or results.folder.name)
    notes = (*general(study, form, blocks), *(f"{mark} paper: {text}." for text, mark in marks.items()))
    notes += (*form.notes, *remarks(measured, form, results))
    return Filled(form, study, tuple(blocks), marks, shared(faced), notes)


def extra(measured: Measured, form: PaperTable, section: TableSection, declared: set[str]) -> list[TableLine]:
    """Curricula that the study has scored and the paper does not have."""
    lines = []
    for name, rows in measured.rows.items():
        told = variants(rows[0], form.telling)
        last = told[-1][0] if told[-1][0] in form.telling else OTHER
        if name not in declared and rows[0].score is not None and last in section.takes:
            title = chain(rows[0].tasks, {task: value for task, value in told if value}, root_of(rows[0], form))
            lines.append(TableLine(title, "", name))
    return lines


def root_of(row: Row, form: PaperTable) -> str:
    """The kind of root that a line must name."""
    return form.family(row.root) if form.family else ""


def shared(cells: Iterable[Cell]) -> dict[str, str]:
    """By heading, the finding that all printed cells under it have."""
    said: dict[str, set[str]] = {}
    for cell in cells:
        said.setdefault(cell.column.heading, set()).add(cell.finding)
    return {heading: next(iter(texts)) for heading, texts in said.items() if len(texts) == 1 and "" not in texts}


def general(study: str, form: PaperTable, blocks: Sequence[tuple[TableSection, Sequence[Entry]]]) -> list[str]:
    """What the two kinds of numbers are."""
    cells = [cell for _, entries in blocks for entry in entries for cell in entry.cells]
    used: dict[str, list[str]] = {}
    for protocol, split in dict.fromkeys((c.protocol, c.split) for c in cells if c.value):
        used.setdefault(split, []).append(readable(protocol))
    how = "; ".join(f"{', '.join(names)} on {SPLITS[split]} cases" for split, names in used.items())
    notes = [f"paper: as printed, {form.data}. here: study {study}, {how or 'nothing measured yet'}."]
    notes.append("Other data, another split or other settings: the two stand beside each other, not against.")
    stands = dict.fromkeys(f"{c.column.heading}: {c.column.label} {c.column.cls}" for c in cells if c.column.cls)
    if stands and any(cell.column.metric == "auc" for cell in cells):
        notes.append("; ".join(stands).replace("_", " ") + "; AVG: mean over the labels.")
    if spreads := [cell.value.spread for cell in cells if cell.value]:
        notes.append(f"95 % interval of what was measured here: {kind_of_interval(spreads)}.")
    return notes


def remarks(measured: Measured, form: PaperTable, results: Results) -> list[str]:
    """What became of single lines: failed seeds, and the choice among several settings."""
    said = []
    for rows in measured.rows.values():
        told = {t: v for t, v in variants(rows[0], form.telling) if v}
        name = chain(rows[0].tasks, told, root_of(rows[0], form))
        tried = sum(row.score is not None for row in rows)
        if tried > 1:
            said.append(f"{name}: the best of {tried} settings by the study's objective.")
        if rows[0].error:
            said.append(f"{name}: {textwrap.shorten(rows[0].error, 200)}.")
    return said + [f"Caution: {text}." for text in results.scores["caveats"].unique().to_pylist() if text]
