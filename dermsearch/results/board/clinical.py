"""One class as a clinician asks for it: sensitivity at a given specificity, calibration, and what guessing the commoner
answer would come to, for every curriculum, from the predictions that were kept.

Where few cases have the class, accuracy is high for whoever never says it: it stands beside that of the commonest
answer, and a curriculum below it is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from dermsearch import metrics
from dermsearch.errors import UserError, nearest
from dermsearch.results.board.leaderboard import leaderboard, points
from dermsearch.results.board.row import Row
from dermsearch.results.tables.lineages import Key, differences
from dermsearch.results.tables.measure import choose
from dermsearch.results.tables.said import Answers, Said, said
from dermsearch.results.tables.schema import FIT, Results

if TYPE_CHECKING:
    from rich.table import Table

SPECIFICITIES = (0.8, 0.9)
BINS = 10  # of equal width, in which a probability is compared with what came true
POSITIVE = ("malignant", "MEL", "mel", "melanoma", "present", "positive", "1")  # asked for where a label has one
NAMES = {
    "accuracy": "accuracy",
    "commonest": "always the\ncommonest",
    "balanced": "balanced\naccuracy",
    "auc": "AUC",
    "at_80": "sens. at\n80 % spec.",
    "at_90": "sens. at\n90 % spec.",
    "calibration": "calibration\nerror",
}
Number = tuple[float | None, float | None, float | None]  # with the ends of its interval
Found = Mapping[str, np.ndarray]  # of each number (1 + replicates,)


@dataclass(frozen=True)
class Clinical:
    """A curriculum's numbers, means over its seeds and draws, each with its 95 % interval over patients."""

    row: Row
    numbers: Mapping[str, Number]
    curve: list[tuple[float, float, int]]  # of each bin that holds cases: mean probability, share that came true, cases


@dataclass(frozen=True)
class Board:
    """All curricula, in the order of the leaderboard."""

    label: str
    cls: str
    judge: str
    cases: int
    having: int  # cases that have the class
    groups: str
    rows: list[Clinical]

    @property
    def told(self) -> dict[Key, dict[str, str]]:
        """By curriculum what tells it from others of the same tasks."""
        return differences(each.row.key for each in self.rows)


def clinical(results: Results, protocol: str | None = None, label: str | None = None, cls: str | None = None) -> Board:
    """The board of one class of one label; what is not named is the objective's, or what can be told."""
    label = label or _label(results)
    measure = choose(results, protocol, "auc", label)
    if measure.parts:
        raise UserError(f"--protocol: must be named, one of {', '.join(measure.parts)}")
    of = {(each.stage, each.draw): each for each in said(results, measure)}
    if not of:
        raise UserError(f"{results.folder}: keeps no predictions by {measure.judge}; run the study again")
    answers = next(iter(of.values())).labels[label]
    cls = chosen(answers, cls)
    fits = results.stages.filter(pc.field("kind") == FIT)
    fitted = dict(zip(fits["key"].to_pylist(), fits["parent"].to_pylist(), strict=True))
    rows = []
    for row in leaderboard(results, protocol, "auc", label):
        own = [each for (stage, _), each in of.items() if fitted.get(stage, stage) in row.keys]
        if own and row.score is not None:
            rows.append(of_row(row, own, label, cls))
    known = answers.truth >= 0
    having = int((answers.truth == answers.classes.index(cls)).sum())
    return Board(label, cls, measure.judge, int(known.sum()), having, rows[0].row.groups if rows else "", rows)


def _label(results: Results) -> str:
    objective = results.study.get("objective") or {}
    named = objective.get("label")
    labels = [each for each in results.scores["label"].unique().to_pylist() if each != metrics.MEAN_LABEL]
    return str(named) if named in labels else ("diagnosis" if "diagnosis" in labels else labels[0])


def chosen(answers: Answers, cls: str | None) -> str:
    """The class that is asked for, or the one that papers report."""
    if cls is not None and cls not in answers.classes:
        raise UserError(f"--class: {answers.name} has no class '{cls}'; {nearest(cls, answers.classes)}")
    known = next((name for name in POSITIVE if name in answers.classes), None)
    if cls is None and known is None and len(answers.classes) != 2:
        raise UserError(f"--class: must be named, one of {', '.join(answers.classes)}")
    return cls or known or answers.classes[1]


def of_row(row: Row, judgements: Sequence[Said], label: str, cls: str) -> Clinical:
    """The means over a curriculum's judgements, with the patients drawn alike for all of them."""
    weights = metrics.case_weights(judgements[0].labels[label].groups)
    each = [numbers(judgement.labels[label], cls, weights) for judgement in judgements]
    means = {name: np.mean([found[name] for found in each], 0) for name in NAMES}
    pooled = [judgement.labels[label] for judgement in judgements]
    return Clinical(row, {name: metrics.summary(values) for name, values in means.items()}, curve(pooled, cls))


def numbers(answers: Answers, cls: str, weights: np.ndarray) -> Found:
    """All numbers of one judgement under weights (cases, replicates)."""
    known = answers.truth >= 0
    truth, probability, weights = answers.truth[known], answers.probabilities[known], weights[known]
    place = answers.classes.index(cls)
    has, p = truth == place, probability[:, place]
    whole = weights.sum(0)
    hit = (probability.argmax(1) == truth)[:, None] * weights
    shares = np.stack([weights[truth == k].sum(0) for k in range(len(answers.classes))]) / whole
    return {
        "accuracy": hit.sum(0) / whole,
        "commonest": shares.max(0),
        "balanced": metrics.whole("balanced_accuracy", truth, probability, weights),
        "auc": metrics.auc(has, p, weights),
        **{f"at_{round(100 * s)}": sensitivity(has, p, weights, s) for s in SPECIFICITIES},
        "calibration": calibration(has, p, weights),
    }


def sensitivity(has: np.ndarray, p: np.ndarray, weights: np.ndarray, specificity: float) -> np.ndarray:
    """The largest share of the class that is found while so many of the others are not taken for it, per replicate."""
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(p[order]) != 0, True])  # equal probabilities come together
    found = np.cumsum(weights[order] * has[order][:, None], 0, dtype=float)[ends]
    taken = np.cumsum(weights[order] * ~has[order][:, None], 0, dtype=float)[ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        allowed = taken / taken[-1] <= 1 - specificity + 1e-12
        return np.where(allowed, found / found[-1], 0.0).max(0) + np.where(found[-1] * taken[-1] > 0, 0, np.nan)


def bin_of(p: np.ndarray) -> np.ndarray:
    """In which bin a probability is. In single precision 0.7 lies below 0.7, and is in the bin that begins there."""
    return np.minimum((np.asarray(p, float) * BINS + 1e-6).astype(int), BINS - 1)


def calibration(has: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The expected calibration error of the class's probability, per replicate."""
    within = bin_of(p)
    gaps = [np.abs((weights * (p - has)[:, None])[within == b].sum(0)) for b in range(BINS)]
    return np.sum(gaps, 0) / weights.sum(0)


def curve(pooled: Sequence[Answers], cls: str) -> list[tuple[float, float, int]]:
    """Of all judgements together: by bins of the probability, its mean and how often it came true."""
    known = [(each.truth[each.truth >= 0], each.probabilities[each.truth >= 0]) for each in pooled]
    place = pooled[0].classes.index(cls)
    has = np.concatenate([truth == place for truth, _ in known])
    p = np.concatenate([probability[:, place] for _, probability in known])
    within = bin_of(p)
    bins = [within == b for b in range(BINS)]
    return [(float(p[b].mean()), float(has[b].mean()), int(b.sum())) for b in bins if b.any()]


def render(board: Board, title: str) -> Table:
    """The board for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    share = points(board.having / max(1, board.cases))
    note = (
        f"{board.label} = {board.cls}, protocol {board.judge}, {board.cases} cases of validation, {share} % have it\n"
        f"percent [95 % interval, bootstrap over {board.groups}]; calibration error over {BINS} bins, less is better"
    )
    below = [each for each in board.rows if (each.numbers["accuracy"][0] or 0) < (each.numbers["commonest"][0] or 0)]
    note += "\n*: less accurate than always saying the commonest answer" if below else ""
    table = Table(title=title, caption=note, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("curriculum")
    for heading in NAMES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    told = board.told
    for each in board.rows:
        cells = [cell(each.numbers[name]) for name in NAMES]
        cells[0] += "*" * (each in below)
        apart = "; ".join(f"{task}: {text}" for task, text in told[each.row.key].items())
        name = f"{each.row.name}\n  {apart}" if apart else each.row.name
        table.add_row(Text(name), *map(Text, cells), style="" if each.row.length else "dim")
    return table


def cell(number: Number) -> str:
    """62.1 [55, 70]"""
    value, low, high = number
    if value is None:
        return "–"
    return points(value) + ("" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]")
