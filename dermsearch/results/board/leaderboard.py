"""The curricula of a study in the order of their scores: the table that answers the study's question."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import ARROW, BASELINES, RANDOM_WEIGHTS, ROOT_CURRICULUM
from dermsearch.results.tables.lineages import Key, Lineage, differences, lineages, mean_difference, seed_values
from dermsearch.results.tables.measure import Measure, Score, choose, read_baseline, read_scores
from dermsearch.results.tables.schema import Results

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One curriculum with one choice of settings, over its seeds. Scores and differences are fractions."""

    curriculum: str
    settings: tuple[str, ...]  # JSON, one per task
    measure: Measure
    status: str  # done | failed | pruned | dropped (an earlier stage failed) | unscored
    rank: int | None  # among the scored curricula; a baseline has none
    order: str  # C | AC | MC | ? | "" (ordering())
    score: float | None  # mean over the seeds
    low: float | None  # 95 % interval
    high: float | None
    delta_first: float | None  # to the first task of the curriculum alone, same settings and seeds
    delta_none: float | None  # to no pre-training, same seeds
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # one per seed
    keys: tuple[str, ...]  # the stages, one per seed
    error: str

    @property
    def length(self) -> int:
        """Number of tasks: 0 for no pre-training and random weights."""
        return 0 if self.curriculum in BASELINES else self.curriculum.count(ARROW) + 1


def ordering(curriculum: list[str], single: Mapping[str, float]) -> str:
    """C where the scores of the tasks alone strictly increase along the curriculum, AC where they decrease.

    MC otherwise; "" for fewer than two tasks and "?" where a task has no score alone.
    """
    if len(curriculum) < 2:
        return ""
    if any(task not in single for task in curriculum):
        return "?"
    steps = [single[b] - single[a] for a, b in itertools.pairwise(curriculum)]
    if all(step > 0 for step in steps):
        return "C"
    return "AC" if all(step < 0 for step in steps) else "MC"


def leaderboard(
    results: Results,
    protocol: str | None = None,
    metric: str | None = None,
    label: str | None = None,
    split: str = "val",
) -> list[Row]:
    """The study's curricula, best first, the baselines in their places and what has no score at the end.

    What is not given is the study's objective. With one seed the interval is the score's own, of a bootstrap
    over patients; with several, the score is their mean and the interval a 95 % t-interval over the seeds.
    """
    measure = choose(results, protocol, metric, label, split)
    scores, root = read_scores(results, measure)
    lines = lineages(results)
    values = {key: seed_values(line, scores) for key, line in lines.items()}
    none = {seed: score["value"] for seed, score in root.items()}
    rows = [row_of(line, measure, values, scores, none) for line in lines.values()]
    if none:
        rows.append(scored(ROOT_CURRICULUM, (), measure, list(root.values()), tuple(none), {}, none))
    if random := read_baseline(results, measure, RANDOM_WEIGHTS):
        rows.append(scored(RANDOM_WEIGHTS, (), measure, list(random.values()), tuple(random), {}, none))

    single: dict[str, float] = {}
    for row in rows:
        if row.length == 1 and row.score is not None:
            single[row.curriculum] = max(row.score, single.get(row.curriculum, row.score))
    rows = [replace(row, order=ordering(row.curriculum.split(ARROW), single)) for row in rows]
    ranked = sorted((r for r in rows if r.score is not None), key=lambda r: (-(r.score or 0), r.curriculum))
    places = {id(row): place for place, row in enumerate((r for r in ranked if r.length), 1)}
    rest = sorted((r for r in rows if r.score is None), key=lambda r: (r.length, r.curriculum, r.settings))
    return [replace(row, rank=places.get(id(row))) for row in ranked] + rest


def row_of(
    line: Lineage,
    measure: Measure,
    values: Mapping[Key, Mapping[int, float]],
    scores: Mapping[str, Score],
    none: Mapping[int, float],
) -> Row:
    """A lineage as a row; its place and its order are not known yet."""
    if not values[line.key]:
        status = "unscored" if line.status == "done" else line.status
        error = line.error or ("this protocol has not judged it" if status == "unscored" else "")
        empty = (None,) * 5
        return Row(line.curriculum, line.settings, measure, status, None, "", *empty, (), (), (), error)
    first = values.get((line.tasks[0], line.settings[:1]), {}) if len(line.tasks) > 1 else {}
    found = [scores[s["key"]] for s in line.stages if s["key"] in scores]
    row = scored(line.curriculum, line.settings, measure, found, tuple(values[line.key]), first, none)
    return replace(row, error=line.error)


def scored(
    curriculum: str,
    settings: tuple[str, ...],
    measure: Measure,
    found: list[Score],
    seeds: tuple[int, ...],
    first: Mapping[int, float],
    none: Mapping[int, float],
) -> Row:
    """The row of a curriculum, or of no pre-training, that has a score."""
    values = {seed: score["value"] for seed, score in zip(seeds, found, strict=True)}
    low, high = interval(found)
    return Row(
        curriculum=curriculum,
        settings=settings,
        measure=measure,
        status="done",
        rank=None,
        order="",
        score=fmean(values.values()),
        low=low,
        high=high,
        delta_first=mean_difference(values, first),
        delta_none=None if curriculum == ROOT_CURRICULUM else mean_difference(values, none),
        seeds=seeds,
        values=tuple(values.values()),
        keys=tuple(score["stage"] for score in found),
        error="",
    )


def interval(found: Sequence[Score]) -> tuple[float | None, float | None]:
    """95 % interval of the mean of one measure's scores, one per seed: of one seed its own bootstrap over patients.

    Where all seeds agree, as for weights from a file, they are one measurement, and its bootstrap says more.
    """
    values = [score["value"] for score in found]
    if len(set(values)) > 1:
        return t_interval(values, found[0]["metric"])
    return found[0]["ci_low"], found[0]["ci_high"]


def t_interval(values: Iterable[float], metric: str = "") -> tuple[float, float]:
    """95 % interval of a mean from Student's t, within what the metric can be; needs two values."""
    from scipy.special import stdtrit

    values = list(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    lowest, highest = (1.0, math.inf) if metric == "mean_rank" else (0.0, 1.0)
    return max(lowest, fmean(values) - half), min(highest, fmean(values) + half)


HEADINGS = ["#", "curriculum", "order", "score, %  [95 %]", "Δ first\ntask", "Δ no pre-\ntraining", "seeds"]
CURRICULUM = 1  # the only column that is text, and the only one that wraps


def points(value: float | None, sign: str = "") -> str:
    """A fraction in percent points with one decimal."""
    if value is None:
        return ""
    text = f"{100 * value:{sign}.1f}"
    return text if float(text) else "0.0"  # "-0.0" reads as a difference


def cells(rows: list[Row]) -> list[list[str]]:
    """The rows as printed; a curriculum's cell carries, on lines of their own, its settings and its error."""
    told = differences((row.curriculum, row.settings) for row in rows)
    out = []
    for row in rows:
        settings = told[row.curriculum, row.settings]
        lines = [row.curriculum, "; ".join(f"{task}: {text}" for task, text in settings.items())]
        status = "" if row.status == "done" or row.error.startswith(row.status) else row.status
        lines.append(textwrap.shorten(": ".join(filter(None, [status, row.error])), 160))
        ends = "" if row.low is None else f" [{points(row.low)}, {points(row.high)}]"
        out.append(
            [
                str(row.rank or "–"),
                "\n  ".join(filter(None, lines)),
                row.order,
                points(row.score) + ends,
                points(row.delta_first, "+"),
                points(row.delta_none, "+"),
                str(len(row.seeds) or ""),
            ]
        )
    return out


def footnotes(rows: list[Row]) -> list[str]:
    """What a reader must know of the numbers: what they are, the marks, and where the interval comes from."""
    if not rows:
        return ["no curriculum has been scored yet"]
    measure = rows[0].measure
    counts = {len(row.seeds) for row in rows if row.seeds}
    said = []
    if 1 in counts:
        said.append("one seed: bootstrap over patients")
    if counts - {1}:
        said.append("several seeds: Student's t over them, not over patients; score = their mean")
    if any(len(row.seeds) > 1 and len(set(row.values)) == 1 for row in rows):
        said.append("bootstrap where all seeds agree")
    unknown = "; ?: a task has no score alone" if any(row.order == "?" for row in rows) else ""
    of = ", mean over labels" if measure.label == "mean" else f" of {measure.label}"
    what = measure.metric.replace("_", " ") + of
    given = any(row.curriculum == RANDOM_WEIGHTS for row in rows)
    return [
        f"{what}, protocol {measure.protocol}, split {measure.split}",
        *([f"{ROOT_CURRICULUM}: the weights that encoder.weights names"] if given else []),
        "C, AC: scores of the tasks alone strictly rise, fall along the curriculum; MC: neither" + unknown,
        f"95 % interval: {'; '.join(said)}",
        "Δ: percent points, over the same seeds (and, to the first task, the same settings)",
        *([f"Caution: {measure.caveats}"] if measure.caveats else []),
    ]


def render(rows: list[Row], title: str) -> Table:
    """The leaderboard for a terminal; three-task curricula fit into 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    notes = "\n".join(footnotes(rows))
    table = Table(title=title, caption=notes, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i == CURRICULUM else "right", no_wrap=i != CURRICULUM)
    for row, line in zip(rows, cells(rows), strict=True):
        style = "dim" if not row.length else "red" if row.score is None else "bold" if row.rank == 1 else ""
        table.add_row(*(Text(cell) for cell in line), style=style)
    return table


def summary(rows: list[Row]) -> dict[str, Any]:
    """The leaderboard as plain data for JSON, with the mean score by order and by last task."""
    scored_rows = [row for row in rows if row.score is not None]
    chains = [row for row in scored_rows if row.length > 1]
    best = next((row for row in scored_rows if row.length), None)
    none = next((row for row in scored_rows if row.curriculum == ROOT_CURRICULUM), None)
    return {
        "objective": asdict(rows[0].measure) if rows else {},
        "best": best.curriculum if best else None,
        "no_pre_training": none.score if none else None,
        "mean_by_order": means((row.order, row.score) for row in chains),
        "mean_by_last_task": means((row.curriculum.split(ARROW)[-1], row.score) for row in chains),
        "rows": [{**{k: v for k, v in asdict(row).items() if k != "measure"}, "length": row.length} for row in rows],
    }


def means(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The mean of each group, by name."""
    groups: dict[str, list[float]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value or 0.0)
    return {name: fmean(values) for name, values in sorted(groups.items())}
