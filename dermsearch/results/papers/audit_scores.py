"""Whether a study's own numbers agree with each other: every rate with the confusion cells it is computed from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from dermsearch.errors import UserError
from dermsearch.papers.claims import Matrix, matrix_counts, read_confusions
from dermsearch.papers.counts import rates
from dermsearch.papers.sheet import read_sheet
from dermsearch.results.papers.sm3 import LABELS
from dermsearch.results.tables.schema import JUDGED, load

MEAN = "mean"
NAMED = {label: cls for _, label, cls in LABELS.values()}  # the class of a label that the papers report
CLOSE = 1e-6
WHO = [name for name, _ in JUDGED]
PER_CLASS = {"recall": "sens", "specificity": "spec", "precision": "prec"}
OF_NAMED = ("auc", "recall", "specificity", "precision")
Score = Mapping[str, Any]


@dataclass(frozen=True)
class Disagreement:
    """A number that is not what others say it must be."""

    where: str
    what: str
    stored: float | None
    expected: float


@dataclass
class ScoresAudit:
    """How many numbers were compared with others, and those that do not agree."""

    compared: int = 0
    unchecked: int = 0  # judgements of a label without confusion cells
    wrong: list[Disagreement] = field(default_factory=list)
    rates: list[tuple[str, str, dict[str, float]]] = field(default_factory=list)  # row, class, what its matrix gives

    @property
    def consistent(self) -> bool:
        """Whether everything that could be compared agrees."""
        return not self.wrong

    def compare(self, where: str, what: str, stored: float | None, expected: float) -> None:
        """Note a number that differs from what it must be. Null and NaN are the same: not defined."""
        self.compared += 1
        value = math.nan if stored is None else stored
        same = math.isnan(value) == math.isnan(expected) and (math.isnan(value) or abs(value - expected) <= CLOSE)
        if not same:
            self.wrong.append(Disagreement(where, what, stored, expected))


def audit_alone(table: str, counts: str | None = None, confusions: Path | None = None) -> ScoresAudit | None:
    """The audit of what needs no claims beside it: a study's folder, or counted predictions; None for a table."""
    path = Path(table)
    folder = os.path.isdir(table)  # Path.is_dir raises where a name is too long
    if not folder and not (os.path.isfile(table) and "predicted" in read_sheet(path)[0].cells):
        return None
    if counts or confusions:
        option = "--counts" if counts else "--confusions"
        raise UserError(f"{option}: {table} holds its counts itself; leave the option out")
    return audit_scores(path) if folder else audit_confusions(path)


def audit_scores(folder: Path) -> ScoresAudit:
    """Compare every rate of a study's scores with its confusion cells, and means with what they are over."""
    results = load(folder)
    judged: dict[tuple[Any, ...], dict[str, list[Score]]] = {}
    for score in results.scores.to_pylist():
        judged.setdefault(who(score), {}).setdefault(score["label"], []).append(score)
    matrices: dict[tuple[Any, ...], Matrix] = {}
    for cell in results.confusions.to_pylist():
        matrix = matrices.setdefault((*who(cell), cell["label"]), {})
        matrix[cell["truth"], cell["predicted"]] = cell["count"]
    audit = ScoresAudit()
    if not judged:
        raise UserError(f"{folder}: no encoder has been scored yet")
    cases: dict[tuple[str, str], tuple[str, dict[str, int]]] = {}
    for judge, labels in judged.items():
        of = dict(zip(WHO, judge, strict=True))
        by = f"{of['protocol']} on {of['split']} of {of['data']}, seed {of['seed']}, draw {of['draw']}"
        where = f"{of['curriculum']} ({of['stage']}), {by}"
        for label, scores in labels.items():
            if matrix := matrices.get((*judge, label), {}):
                against_cells(audit, f"{where}, {label}", scores, matrix)
                same_cases(audit, cases, (f"{of['data']}/{of['split']}", label), f"{where}, {label}", matrix)
            elif any(score["metric"] == "recall" for score in scores):
                audit.unchecked += 1
        for score in labels.get(MEAN, []):
            against_labels(audit, where, score, labels)
    return audit


def who(row: Score) -> tuple[Any, ...]:
    """Who was judged by whom, as a key."""
    return tuple(row[name] for name in WHO)


def audit_confusions(path: Path) -> ScoresAudit:
    """A file of counted predictions by itself: every row of a label must have been judged on the same cases."""
    audit = ScoresAudit()
    cases: dict[tuple[str, str], tuple[str, dict[str, int]]] = {}
    for (row, label), matrix in read_confusions(path).items():
        same_cases(audit, cases, ("", label), f"{row}, {label}", matrix)
        for cls, counts in matrix_counts(matrix).items():
            found = rates(counts.hits or 0, counts.false_alarms or 0, counts)
            audit.rates.append((row, f"{label}_{cls}", {name: 100 * found[name] for name in ("sens", "spec", "prec")}))
    return audit


def against_cells(audit: ScoresAudit, where: str, scores: Iterable[Score], matrix: Matrix) -> None:
    """Every rate of a label, and the cases it is a share of, against the label's confusion matrix."""
    total, truth = sum(matrix.values()), true_counts(matrix)
    known = {
        cls: (rates(hits := counts.hits or 0, alarms := counts.false_alarms or 0, counts), hits + alarms)
        for cls, counts in matrix_counts(matrix).items()
    }
    for score in scores:
        metric, cls = score["metric"], score["class"]
        if metric in PER_CLASS and cls in known:
            by_cells, predicted = known[cls]
            cases = {"recall": truth[cls], "specificity": total - truth[cls], "precision": predicted}[metric]
            audit.compare(where, f"{metric} of {cls}", score["value"], by_cells[PER_CLASS[metric]])
            audit.compare(where, f"cases behind the {metric} of {cls}", score["n"], cases)
        elif not cls and metric in ("balanced_accuracy", "macro_f1"):
            expected = balanced(matrix) if metric == "balanced_accuracy" else macro_f1(matrix)
            audit.compare(where, metric, score["value"], expected)
            audit.compare(where, f"cases behind the {metric}", score["n"], total)


def against_labels(audit: ScoresAudit, where: str, score: Score, labels: Mapping[str, list[Score]]) -> None:
    """A mean over labels against their own numbers: of the whole label, or of the class that papers report."""
    named = score["metric"].startswith("named_")
    metric = score["metric"].removeprefix("named_")
    if score["class"] or (named and metric not in OF_NAMED):
        return
    values = [
        other["value"]
        for label, scores in labels.items()
        if label != MEAN
        for other in scores
        if other["metric"] == metric and other["class"] == (NAMED.get(label) if named else "")
    ]
    present = [value for value in values if value is not None and not math.isnan(value)]
    if present:
        audit.compare(where, f"mean {score['metric']}", score["value"], fmean(present))


def same_cases(
    audit: ScoresAudit,
    seen: dict[tuple[str, str], tuple[str, dict[str, int]]],
    key: tuple[str, str],
    where: str,
    matrix: Matrix,
) -> None:
    """All who are judged on a split are judged on the same cases, so the classes have the same counts."""
    truth = true_counts(matrix)
    first, expected = seen.setdefault(key, (where, truth))
    for cls in dict.fromkeys([*expected, *truth]):
        audit.compare(where, f"cases of {cls} (as in {first})", truth.get(cls, 0), expected.get(cls, 0))


def true_counts(matrix: Matrix) -> dict[str, int]:
    """Cases of every true class."""
    counts: dict[str, int] = {}
    for (true, _), cases in matrix.items():
        counts[true] = counts.get(true, 0) + cases
    return counts


def balanced(matrix: Matrix) -> float:
    """Mean recall over the classes that have cases."""
    return mean(matrix.get((cls, cls), 0) / cases for cls, cases in true_counts(matrix).items() if cases)


def macro_f1(matrix: Matrix) -> float:
    """Mean F1 over the classes that are true or predicted somewhere."""
    truth, said = true_counts(matrix), true_counts({(b, a): n for (a, b), n in matrix.items()})
    both = {cls: truth.get(cls, 0) + said.get(cls, 0) for cls in {**truth, **said}}
    return mean(2 * matrix.get((cls, cls), 0) / cases for cls, cases in both.items() if cases)


def mean(values: Iterable[float]) -> float:
    """The mean; not a number where there is nothing."""
    values = list(values)
    return fmean(values) if values else math.nan
