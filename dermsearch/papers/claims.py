"""The claims of a results table: a CSV file in one of three forms, and the counts that they should agree with.

long:       row, column_metric ("Sens|BWV_PRS"), value          as in results/published
wide:       row, label, sens, spec, prec, auc                   any of the metrics; also class, positive, total
confusion:  row, label, true, predicted, count                  predictions counted, nothing claimed
counts:     label, positive, total                              also class; a label with one is called LABEL_CLASS
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dermsearch.errors import UserError, nearest
from dermsearch.papers.audit import Claim, RowAudit, audit_row
from dermsearch.papers.counts import Counts, Printed
from dermsearch.papers.published import published_folder
from dermsearch.papers.sheet import NOTHING, SheetLine, need, read_sheet

METRICS = {
    "sens": ("sens", "sensitivity", "recall", "tpr"),
    "spec": ("spec", "specificity", "tnr"),
    "prec": ("prec", "precision", "ppv"),
    "auc": ("auc", "auroc"),
}
NAMES = {name: metric for metric, names in METRICS.items() for name in names}
MEANS = ("avg", "avg.", "mean", "average", "macro")
LONG, WIDE, CONFUSION = ("row", "column_metric", "value"), ("row", "label"), ("row", "label", "true", "predicted")
# The published tables that can be audited, and the file with their counts.
SHIPPED = dict.fromkeys(("sm3_table1", "sm3_code_linear", "sm3_code_finetune"), "derm7pt_test_counts")
# Means that are over a part of the labels, by their names: of the named classes alone?, of which label, without which.
PARTIAL = {
    "8 all avg": (False, "", ""),
    "8 avg": (True, "", ""),
    "7 all avg": (False, "", "DIAG"),
    "7 avg": (True, "", "DIAG"),
    "DIAG avg": (False, "DIAG", ""),
}


@dataclass(frozen=True)
class Label:
    """A class of a label with its counts. `names` are what tables may call it."""

    label: str
    names: tuple[str, ...]
    counts: Counts
    named: bool = True


@dataclass
class Cells:
    """The printed cells of a table by row and label, and the counts that it carries itself."""

    printed: dict[str, dict[str, dict[str, Printed]]] = field(default_factory=dict)
    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)

    def add(self, line: SheetLine, label: str, metric: str, cell: Printed | None) -> None:
        """Take in one cell; an empty one leaves no trace but its row and label."""
        labels = self.printed.setdefault(line.text("row"), {}).setdefault(label, {})
        if metric in labels:
            raise UserError(f"{line.file}, line {line.number}: {metric} of {line['row']}, {label} stands there twice")
        if cell:
            labels[metric] = cell


def audit_table(table: str, counts: str | None = None, confusions: Path | None = None) -> list[RowAudit]:
    """Judge a table: a CSV file, or the name of one that is shipped."""
    shipped = not os.path.isfile(table) and table in SHIPPED
    cells = read_cells(locate(table))
    if confusions is not None:
        if counts is not None:
            raise UserError("--counts: says nothing that --confusions does not; give one of them")
        return judge_all(cells, {}, from_matrices(read_confusions(confusions), cells), str(confusions))
    chosen = counts or (SHIPPED[table] if shipped else None)
    if chosen is None and not cells.counts:
        raise UserError(
            f"{table}: no counts to compare with; give --counts FILE with the columns label, positive, total, "
            "or have the columns positive and total in the table"
        )
    labels = read_counts(locate(chosen)) if chosen else []
    return judge_all(cells, {name: label for label in labels for name in label.names}, cells.counts, chosen or table)


def locate(table: str) -> Path:
    """The file of a table: its path, or the name of a published one."""
    path = Path(table)
    if os.path.isfile(table):  # Path.is_file raises where a name is too long
        return path
    shipped = published_folder() / f"{table}.csv"
    if path.name == table and os.path.isfile(shipped):
        if table not in (*SHIPPED, *SHIPPED.values()):
            raise UserError(f"{table}: has no sensitivities to audit; {nearest(table, SHIPPED)}")
        return shipped
    raise UserError(f"{table}: no such file or published table; {nearest(table, SHIPPED)}")


def read_cells(path: Path) -> Cells:
    """The printed cells of a table in long or wide form."""
    lines = read_sheet(path)
    cells = Cells()
    if "column_metric" in lines[0].cells:
        need(lines, LONG)
        form = form_of(lines, ["value"])
        for line in lines:
            metric, bar, label = line.text("column_metric").partition("|")
            if not bar or not label.strip():
                raise line.error("column_metric", f"'{line['column_metric']}' must be METRIC|LABEL, such as Sens|MEL")
            name = metric.strip().lower()
            cells.add(line, label.strip(), NAMES.get(name, name), line.printed("value", *form))
        return cells
    need(lines, WIDE)
    columns = [column for column in lines[0].cells if column in NAMES]
    if not columns:
        raise UserError(f"{path}: has none of the columns {', '.join(METRICS)}")
    for metric, names in METRICS.items():
        if sum(name in columns for name in names) > 1:
            raise UserError(f"{path}: has more than one column for {metric}")
    form = form_of(lines, columns)
    for line in lines:
        label = "_".join(filter(None, [line.text("label"), line["class"]]))
        for column in columns:
            cells.add(line, label, NAMES[column], line.printed(column, *form))
        if line["positive"] or line["total"]:
            cells.counts[line["row"], label] = read_count(line)
    return cells


def form_of(lines: Sequence[SheetLine], columns: Sequence[str]) -> tuple[bool, int]:
    """How numbers are printed: in percent? And the decimals that a fraction has at least, two where any has them."""
    there = [(line.plain(column), line[column]) for line in lines for column in columns if line[column] not in NOTHING]
    short = all(len(text.partition(".")[2]) < 2 for _, text in there)
    return any(value > 1 for value, _ in there), 1 if short else 2


def read_count(line: SheetLine) -> Counts:
    """The columns `positive` and `total` of a line."""
    counts = Counts(line.count("positive"), line.count("total"))
    if not 0 < counts.positive < counts.total:
        raise line.error("positive", f"{counts.positive} must be more than none and less than all {counts.total}")
    return counts


def read_counts(path: Path) -> list[Label]:
    """The counts of each label, or of each of its classes where there is a column `class`."""
    lines = read_sheet(path)
    need(lines, ("label", "positive", "total"))
    groups: dict[str, list[tuple[str, Counts, bool]]] = {}
    for line in lines:
        group = groups.setdefault(line.text("label"), [])
        if any(line["class"] == name for name, _, _ in group):
            raise line.error("label", f"{line['label']} {line['class']} stands there twice")
        group.append((line["class"], read_count(line), line["named"] != "no"))
    labels = []
    for label, classes in groups.items():
        for place, (name, counts, named) in enumerate(classes, 1):
            called = (f"{label}_{name}", f"{label}-{name}", f"{label}-{place}") if name else (label,)
            others = tuple((other, c.positive) for other, c, _ in classes if other != name)
            labels.append(Label(label, called, replace(counts, others=others), named))
    return labels


Matrix = dict[tuple[str, str], int]  # (true, predicted) -> cases


def read_confusions(path: Path) -> dict[tuple[str, str], Matrix]:
    """Counted predictions by row and label. Every row of a label must be judged on the same cases."""
    lines = read_sheet(path)
    need(lines, (*CONFUSION, "count"))
    matrices: dict[tuple[str, str], Matrix] = {}
    for line in lines:
        matrix = matrices.setdefault((line.text("row"), line.text("label")), {})
        cell = line.text("true"), line.text("predicted")
        if cell in matrix:
            raise line.error("count", f"{cell[0]} predicted as {cell[1]} stands there twice")
        matrix[cell] = line.count("count")
    return matrices


def from_matrices(matrices: Mapping[tuple[str, str], Matrix], cells: Cells) -> dict[tuple[str, str], Counts]:
    """What the counted predictions say of every claim; its label must name a class, as LABEL_CLASS."""
    known = {
        (row, f"{label}_{cls}"): counts
        for (row, label), matrix in matrices.items()
        for cls, counts in matrix_counts(matrix).items()
    }
    for row, labels in cells.printed.items():
        for label in labels:
            if label.lower() not in MEANS and (row, label) not in known:
                names = [name for other, name in known if other == row]
                raise UserError(f"{row}, {label}: no counted predictions of this class; {nearest(label, names)}")
    return known


def matrix_counts(matrix: Matrix) -> dict[str, Counts]:
    """The counts of every class that has cases and is not all there is."""
    total = sum(matrix.values())
    found = {}
    for cls in dict.fromkeys(true for true, _ in matrix):
        positive = sum(n for (true, _), n in matrix.items() if true == cls)
        predicted = sum(n for (_, said), n in matrix.items() if said == cls)
        hits = matrix.get((cls, cls), 0)
        if 0 < positive < total:
            found[cls] = Counts(positive, total, hits, predicted - hits)
    return found


def judge_all(
    cells: Cells, labels: Mapping[str, Label], own: Mapping[tuple[str, str], Counts], source: str
) -> list[RowAudit]:
    """Judge every row of a table; `own` are counts of one row and label, `labels` those of all rows."""
    audits = []
    for row, printed in cells.printed.items():
        means = [label for label in printed if label.lower() in MEANS or label in PARTIAL]
        claims = []
        for label in [label for label in printed if label not in means]:
            counts = own.get((row, label)) or (labels[label].counts if label in labels else None)
            if counts is None:
                known = dict.fromkeys(part.names[0] for part in labels.values())
                raise UserError(f"{source}: has no counts of '{label}'; {nearest(label, known)}")
            claims.append(Claim(row, label, printed[label], counts))
        if not any(claim.triple for claim in claims):
            raise UserError(f"row '{row}': has no sensitivity, specificity or precision of any label")
        over = [(label, printed[label], members(label, [c.label for c in claims], labels)) for label in means]
        audits.append(audit_row(claims, over))
    return audits


def members(mean: str, claimed: Sequence[str], labels: Mapping[str, Label]) -> list[str]:
    """The labels that a printed mean is over."""
    if mean not in PARTIAL:
        return list(claimed)
    named, of, without = PARTIAL[mean]
    known = [(name, labels[name]) for name in claimed if name in labels]
    return [
        n for n, part in known if (part.named or not named) and part.label != without and (not of or part.label == of)
    ]
