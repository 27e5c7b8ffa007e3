"""The curricula of a study in the order of their scores: the table that answers the study's question."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import NO_WEIGHTS, RANDOM_WEIGHTS, ROOT_CURRICULUM, Curriculum, given_weights
from dermsearch.results.board.about import PATIENTS, About, about
from dermsearch.results.board.differences import differences, drawn, patients_of
from dermsearch.results.board.intervals import NO_SPREAD, Spread, alike, interval
from dermsearch.results.board.paired import Difference
from dermsearch.results.board.row import Row, tied
from dermsearch.results.board.settled import settled
from dermsearch.results.tables.lineages import Key, Lineage, lineages, mean_difference, seed_values
from dermsearch.results.tables.lineages import differences as settings_apart
from dermsearch.results.tables.measure import Measure, Score, choose, failures, read_scores
from dermsearch.results.tables.schema import Results

if TYPE_CHECKING:
    from rich.table import Table


def ordering(curriculum: Curriculum, single: Mapping[str, float]) -> str:
    """C where the scores of the tasks alone strictly increase along the curriculum, AC where they decrease.

    MC otherwise; "" for fewer than two tasks and "?" where a task has no score alone.
    """
    if len(curriculum) < 2:
        return ""
    if any(task not in single for task in curriculum):
        return "?"
    steps = [single[b] - single[a] for a, b in curriculum.pairs()]
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

    What is not given is the study's objective; a protocol may be given as finetune@pad:20. A score is the mean over
    seeds and draws of labels; its interval holds patients and replicates, see `board/intervals.py`.
    """
    measure = choose(results, protocol, metric, label, split)
    scores, baselines = read_scores(results, measure)
    lines, why = lineages(results), failures(results, measure)
    trained = {key: [scores[s["key"]] for s in line.stages if s["key"] in scores] for key, line in lines.items()}
    values = {key: seed_values(line, scores) for key, line in lines.items()}
    roots = {Key(Curriculum(baseline=name), (), root): [*seeds.values()] for (name, root), seeds in baselines.items()}
    spread = Spread.of(trained.values(), roots.values())
    values |= {key: {score.seed: score.value for score in seeds} for key, seeds in roots.items()}
    single: dict[str, dict[str, float]] = {}
    for key, own in values.items():
        if len(key.curriculum) == 1 and own:
            of_root, task, score = single.setdefault(key.root, {}), str(key.curriculum), fmean(own.values())
            of_root[task] = (min if measure.less else max)(score, of_root.get(task, score))

    def of(key: Key) -> dict[str, Any]:
        return {"error": lines[key].error, "order": ordering(key.curriculum, single.get(key.root, {}))}

    rows = [
        scored(key, measure, own, spread, values, **of(key)) if own else unscored(lines[key], measure, why, **of(key))
        for key, own in trained.items()
    ]
    rows += [scored(key, measure, own, NO_SPREAD if alike(own) else spread, values) for key, own in roots.items()]
    names = {row.root for row in rows}
    rows = [replace(r, given=r.curriculum == ROOT_CURRICULUM and given_weights(r.root, names)) for r in rows]
    sign = 1 if measure.less else -1
    ranked = sorted((r for r in rows if r.score is not None), key=lambda r: (sign * (r.score or 0), r.name))
    ranked = compared(ranked, trained | roots, results, measure)
    rest = sorted((r for r in rows if r.score is None), key=lambda r: (r.length, r.name, r.settings))
    return ranked + rest


def compared(
    ranked: Sequence[Row], scores: Mapping[Key, Sequence[Score]], results: Results, measure: Measure
) -> list[Row]:
    """The rows, best first, with their differences to no pre-training, to the best task alone and to the best.

    And with their ranks: 1 for every one that cannot be told from the best, then their places. Where nothing was
    trained, what the study begins with is ranked.
    """
    of = {row.key: row for row in ranked}
    trained = [key for key, row in of.items() if row.length] or list(of)
    best = next(iter(trained), None)
    single = next((key for key, row in of.items() if row.length == 1), None)
    chances = drawn(results, measure)

    def to(reference: Mapping[Key, Key | None]) -> dict[Key, Difference]:
        known = {key: other for key, other in reference.items() if other is not None}
        return differences(scores, known, chances)

    none = to({key: without(key) for key in of})
    alone, first = (to(dict.fromkeys(trained, other)) for other in (single, best))
    places = {key: place for place, key in enumerate(trained, 1)}
    ranks = {key: 1 if tied(first.get(key), measure) else place for key, place in places.items()}
    return [
        replace(row, to_none=none.get(key), to_single=alone.get(key), to_best=first.get(key), rank=ranks.get(key))
        for key, row in of.items()
    ]


def without(key: Key) -> Key:
    """What a lineage is compared with to see what pre-training gave; weights from elsewhere with random ones."""
    if key != key.beginning or not key.root:
        return key.beginning
    return Key(Curriculum(), (), " ".join([*key.root.split()[:-1], NO_WEIGHTS]))


def unscored(line: Lineage, measure: Measure, why: Mapping[str, str], error: str, order: str) -> Row:
    """The row of a lineage without a score."""
    status = "unscored" if line.status == "done" else line.status
    failed = next((why[stage["key"]] for stage in line.stages if stage["key"] in why), "")
    error = error or (failed or "this protocol has not judged it" if status == "unscored" else "")
    return Row(line.key.root, str(line.curriculum), line.key.settings, measure, status, error=error, order=order)


def scored(
    key: Key,
    measure: Measure,
    scores: Sequence[Score],
    spread: Spread,
    values: Mapping[Key, Mapping[int, float]],
    error: str = "",
    order: str = "",
) -> Row:
    """The row of a lineage, or of a root, that has a score; its place is not known yet."""
    own = {score.seed: score.value for score in scores}
    low, high = interval(scores, spread, measure.metric)
    first = values.get(Key(key.curriculum.prefix(1), key.settings[:1], key.root), {}) if len(key.curriculum) > 1 else {}
    none = {} if key == key.beginning else values.get(key.beginning, {})
    return Row(
        key.root,
        str(key.curriculum),
        key.settings,
        measure,
        "done",
        score=fmean(own.values()),
        low=low,
        high=high,
        delta_first=mean_difference(own, first),
        delta_none=mean_difference(own, none),
        seeds=tuple(own),
        draws=max(len(score.values) for score in scores),
        groups=next((score.groups for score in scores if score.groups), PATIENTS),
        error_of_patients=(patients_of(scores) or 0.0) / 1.96,
        values=tuple(own.values()),
        keys=tuple(score.stage for score in scores),
        spread=spread,
        error=error,
        order=order,
    )


HEADINGS = ["#", "curriculum", "order", "score, %  [95 %]", "Δ no pre-\ntraining", "Δ best\ntask alone", "seeds"]
CURRICULUM = 1  # the only column that is text, and the only one that wraps


def points(value: float | None, sign: str = "") -> str:
    """A fraction in percent points with one decimal."""
    if value is None:
        return ""
    text = f"{100 * value:{sign}.1f}"
    return text if float(text) else "0.0"  # "-0.0" reads as a difference


def apart(difference: Difference | None) -> str:
    """A difference as printed: its value with half of its interval."""
    if difference is None:
        return ""
    return points(difference.value, "+") + ("" if difference.half is None else f" ± {points(difference.half)}")


def cells(rows: list[Row]) -> list[list[str]]:
    """The rows as printed; a curriculum's cell carries, on lines of their own, its settings and its error."""
    told, tied = settings_apart(row.key for row in rows), any(row.ties for row in rows)
    out = []
    for row in rows:
        settings = told[row.key]
        lines = [row.name, "; ".join(f"{task}: {text}" for task, text in settings.items())]
        status = "" if row.status == "done" or row.error.startswith(row.status) else row.status
        lines.append(textwrap.shorten(": ".join(filter(None, [status, row.error])), 160))
        ends = "" if row.low is None else f" [{points(row.low)}, {points(row.high)}]"
        out.append(
            [
                f"{row.rank or '–'}" + "=" * (tied and row.rank == 1),
                "\n  ".join(filter(None, lines)),
                row.order,
                points(row.score) + ends,
                apart(row.to_none),
                apart(row.to_single),
                str(len(row.seeds) or "") + (f" x {row.draws}" if row.draws > 1 else ""),
            ]
        )
    return out


def footnotes(rows: list[Row], known: About | None = None) -> list[str]:
    """What a reader must know of the numbers: what they are, the marks, and where the interval comes from."""
    if not rows:
        return ["no curriculum has been scored yet"]
    measure, known = rows[0].measure, known or About()
    marks = {row.order for row in rows}
    of = ", mean over labels" if measure.label == "mean" else f" of {measure.label}"
    chance = "" if known.chance is None else f" (chance {points(known.chance)} %)"
    what = measure.metric.replace("_", " ") + of + chance + ", less is better" * measure.less
    given = any(row.curriculum == RANDOM_WEIGHTS for row in rows)
    gaps = [d for row in rows for d in (row.to_none, row.to_single) if d is not None and d.half is not None]
    unpaired = gaps and not all(gap.paired for gap in gaps)
    drawn = next((row for row in rows if row.draws > 1), None)
    return [
        f"{what}, protocol {measure.judge}, {known.cases}split {measure.split}{known.data}",
        *([f"{ROOT_CURRICULUM}: the weights that encoder.weights names"] if given else []),
        *(["; ".join(text for mark, text in MARKS.items() if mark in marks)] if marks & MARKS.keys() else []),
        f"95 % interval: {kind_of_interval((row.spread for row in rows), known.groups)}",
        "Δ: percent points, over the same seeds"
        + (" ± half of its 95 % interval" if gaps else "")
        + (f", unpaired: as if each had other {known.groups}" if unpaired else ""),
        *(["1=: cannot be told from the best"] if any(row.ties for row in rows) else []),
        *([f"{len(drawn.seeds)} x {drawn.draws}: seeds x draws of labels"] if drawn else []),
        *([f"Caution: {measure.caveats}"] if measure.caveats else []),
    ]


MARKS = {
    "C": "C: a curriculum, its tasks' own scores rise along it",
    "AC": "AC: an anti-curriculum, its tasks' own scores fall along it",
    "MC": "MC: mixed, neither rising nor falling",
    "?": "?: a task has no score alone",
}


def kind_of_interval(spreads: Iterable[Spread], groups: str = "patients") -> str:
    """What intervals hold, in words."""
    known = next((spread for spread in spreads if spread.freedom), None)
    if known is None:
        return f"bootstrap over {groups}"
    what = "seeds" if known.seeds else "draws of labels"
    return f"bootstrap over {groups} and, of {what}, Student's t with their spread over all curricula; score = mean"


def render(rows: list[Row], title: str, results: Results | None = None) -> Table:
    """The leaderboard for a terminal; three-task curricula fit into 100 columns.

    Given the tables that it is of, it also tells what the study settles.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    known = about(results, rows[0].measure) if results and rows else None
    told = settled(rows, results) if results else ""
    notes = Text.assemble("\n", (f"{told}\n" * bool(told), "not dim not italic"), "\n".join(footnotes(rows, known)))
    table = Table(title=title, caption=notes, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge = False  # in 80 columns a long name needs the room
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i == CURRICULUM else "right", no_wrap=i != CURRICULUM)
    table.columns[CURRICULUM].overflow = "fold"  # a name loses no letter
    for row, line in zip(rows, cells(rows), strict=True):
        style = (
            "dim"
            if not row.length
            else "red"
            if row.score is None
            else "bold"
            if row.rank == 1 and not row.ties
            else ""
        )
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
        "best": best.name if best else None,
        "no_pre_training": none.score if none else None,
        "mean_by_order": means((row.order, row.score) for row in chains),
        "mean_by_last_task": means((row.tasks.last, row.score) for row in chains),
        "rows": [{**plain(row), "length": row.length} for row in rows],
    }


def plain(row: Row) -> dict[str, Any]:
    """A row's own fields: what all rows share is told once."""
    return {name: value for name, value in asdict(row).items() if name not in ("measure", "spread")}


def means(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The mean of each group, by name."""
    groups: dict[str, list[float]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value or 0.0)
    return {name: fmean(values) for name, values in sorted(groups.items())}
