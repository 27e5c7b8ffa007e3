"""Why curricula score as they do: what each task, its place, its neighbours and the order of tasks are worth.

A curriculum is one row: its mean over seeds and settings. docs/explain.md tells how each number is computed. What is
told must stand out from two kinds of chance: what a model leaves over between curricula, and luck, see `luck`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from dermsearch.curriculum import Curriculum
from dermsearch.results.explain.effects import Effect, axes_beyond, contrast, holm, ratio, share
from dermsearch.results.explain.evidence import Evidence, Observed
from dermsearch.results.explain.importance import importance

FEW_SEEDS = 3  # recommended; of one seed nothing is told
REVERSED, APART = "the other way round", "not side by side"


@dataclass(frozen=True)
class Explanation:
    """The tables of an explanation, and what they are made of."""

    evidence: Evidence
    tasks: list[Effect]
    places: list[Effect]
    pairs: list[Effect]
    shares: list[Effect]
    settings: list[Effect]

    @property
    def effects(self) -> list[Effect]:
        """All of them."""
        return [*self.shares, *self.tasks, *self.places, *self.pairs, *self.settings]


def explain(evidence: Evidence) -> Explanation:
    """Every effect that the evidence can tell, each table corrected for its number of comparisons.

    With one seed none is told, since an effect and luck that was handed on are the same thing.
    """
    made = task_effects, place_effects, pair_effects, variance_shares
    tables = [*(holm(effects(evidence)) for effects in made), importance(evidence.samples)]
    if evidence.luck is None:
        tables = [[replace(e, adjusted=None) for e in table] for table in tables]
    return Explanation(evidence, *tables)


Row = Callable[[Observed], list[float]]


def effect(
    evidence: Evidence,
    rows: Sequence[Observed],
    row: Row,
    weights: Sequence[float],
    part: str,
    name: str,
    against: str,
) -> Iterator[Effect]:
    """One contrast over curricula, nothing where they cannot tell it.

    Its interval is the wider one of two: what the model leaves over between curricula, and luck as seeds tell it.
    """
    found = contrast([row(o) for o in rows], [o.score for o in rows], weights)
    if found is None:
        return
    low, high = found.interval
    p = found.p
    if evidence.luck is not None and low is not None and high is not None and p is not None:
        error = evidence.luck.error(rows, found.loads)
        by_luck = replace(found, error=error, freedom=evidence.luck.freedom)
        ends = [end for end in by_luck.interval if end is not None]
        low, high, p = min(low, *ends), max(high, *ends), max(p, by_luck.p or 0.0)
    yield Effect(part, name, against, found.value, low, high, len(rows), found.freedom, p)


def task_effects(evidence: Evidence) -> Iterator[Effect]:
    """What a task adds to a curriculum, whatever else is in it; or, where all are as long, against other tasks."""
    tasks, rows = evidence.tasks, evidence.curricula
    if len(tasks) < 2:
        return

    def row(o: Observed) -> list[float]:
        return [1.0, *(float(o.tasks.count(task)) for task in tasks)]

    one_length = len({len(o.tasks) for o in rows}) == 1
    for task in tasks:
        weights = others(tasks, task, [t for t in tasks if t != task] if one_length else [])
        against = "another task instead" if one_length else "the curriculum without it"
        yield from effect(evidence, rows, row, [0.0, *weights], part="task", name=task, against=against)


def place_effects(evidence: Evidence) -> Iterator[Effect]:
    """A task in a place against the other tasks there, of the same tasks; and rising against falling.

    Who is last is not first, so what the first task does is what it does beyond the last. In between is the rest.
    """
    tasks = evidence.tasks
    rows = reordered(evidence.chains)
    kinds = sorted({o.kind for o in rows})

    def last(o: Observed) -> list[float]:
        return [*one_hot(o.kind, kinds), *one_hot(o.tasks[-1], tasks)]

    def first(o: Observed) -> list[float]:
        return [*last(o), *one_hot(o.tasks[0], tasks)]

    for place, at, row, before, against in (
        ("last", -1, last, len(kinds), "another of the same tasks"),
        ("first", 0, first, len(kinds) + len(tasks), "another, the last task alike"),
    ):
        for task in tasks:
            if compared := rivals(rows, at, task):
                weights = [0.0] * before + others(tasks, task, compared)
                yield from effect(evidence, rows, row, weights, part=place, name=task, against=against)
    marked = [o for o in rows if o.mark in MARKS]

    def marks(o: Observed) -> list[float]:
        return [*one_hot(o.kind, kinds), *one_hot(o.mark, MARKS)]

    weights = [0.0] * len(kinds) + [1.0, -1.0, 0.0]
    yield from effect(evidence, marked, marks, weights, part="order", name="rising (C)", against="falling (AC)")


MARKS = ("C", "AC", "MC")


def pair_effects(evidence: Evidence) -> Iterator[Effect]:
    """A task right before another, against the other way round and against not side by side, of the same tasks."""
    for a, b in itertools.combinations(evidence.tasks, 2):
        rows = reordered([o for o in evidence.chains if a in o.tasks and b in o.tasks])
        kinds = sorted({o.kind for o in rows})

        def row(o: Observed, a: str = a, b: str = b, kinds: Sequence[tuple[str, ...]] = kinds) -> list[float]:
            return [*one_hot(o.kind, kinds), adjacent(o, a, b), adjacent(o, b, a)]

        none = [0.0] * len(kinds)
        forward, backward = str(Curriculum((a, b))), str(Curriculum((b, a)))
        for name, against, weights in (
            (forward, REVERSED, [1.0, -1.0]),
            (forward, APART, [1.0, 0.0]),
            (backward, APART, [0.0, 1.0]),
        ):
            yield from effect(evidence, rows, row, none + weights, part="pair", name=name, against=against)


def variance_shares(evidence: Evidence) -> Iterator[Effect]:
    """How much of the variance among curricula of two tasks or more each description of them explains."""
    rows = evidence.chains
    scores = [o.score for o in rows]
    if len(rows) < 3:
        return
    described = {}
    for name, of in DESCRIBED.items():
        known = list(dict.fromkeys(of(o) for o in rows))
        described[name] = [one_hot(of(o), known) for o in rows]
    if any(o.mark == "?" for o in rows):  # not every task has a score alone
        del described["rising or falling"]
    nothing: list[list[float]] = [[]] * len(rows)
    asked = [(name, "", nothing) for name in described]
    asked += [(name, base, described[base]) for name, base in BEYOND if name in described and base in described]
    for name, against, base_columns in asked:
        if found := share(base_columns, described[name], scores):
            axes = axes_beyond(base_columns, described[name])
            yield replace(by_luck(evidence, found, rows, axes), name=name, against=against)
    if found := any_order(evidence):
        yield found


def by_luck(evidence: Evidence, found: Effect, rows: Sequence[Observed], axes: np.ndarray) -> Effect:
    """A share that is told only if luck alone would not explain as much."""
    if evidence.luck is None or found.p is None:
        return found
    explained = float(sum(float(axis @ [o.score for o in rows]) ** 2 for axis in axes.T))
    return replace(found, p=max(found.p, evidence.luck.chance(rows, axes, explained)))


DESCRIBED: dict[str, Callable[[Observed], object]] = {
    "how many tasks": lambda o: len(o.tasks),
    "which tasks": lambda o: o.kind,
    "the last task": lambda o: o.tasks[-1],
    "the first task": lambda o: o.tasks[0],
    "rising or falling": lambda o: o.mark,
}
BEYOND = (
    ("the last task", "which tasks"),
    ("rising or falling", "which tasks"),
    ("the last task", "rising or falling"),
    ("rising or falling", "the last task"),
)


def any_order(evidence: Evidence) -> Effect | None:
    """All that order may do beyond which tasks there are, against the noise between seeds; needs two seeds."""
    seeds = evidence.seeds
    rows = [o for o in evidence.chains if len(o.values) == len(seeds)]
    kinds = {o.kind for o in rows}
    added, freedom = len(rows) - len(kinds), (len(rows) - 1) * (len(seeds) - 1)
    if len(seeds) < 2 or added < 1:
        return None
    mean = {seed: fmean(o.values[seed] for o in rows) for seed in seeds}
    grand = fmean(mean.values())
    noise = sum((o.values[s] - o.score - mean[s] + grand) ** 2 for o in rows for s in seeds) / freedom / len(seeds)
    centre = {kind: fmean(o.score for o in rows if o.kind == kind) for kind in kinds}
    inside = sum((o.score - centre[o.kind]) ** 2 for o in rows)
    total = sum((o.score - grand) ** 2 for o in rows)
    if total < 1e-16 or noise < 1e-16 * total:
        return None
    found = ratio(inside / added / noise, added, freedom, inside / total, len(rows), lambda n: n * noise / total)
    known = sorted(kinds)
    every = [one_hot(o, rows) for o in rows]
    axes = axes_beyond([one_hot(o.kind, known) for o in rows], every)
    return replace(by_luck(evidence, found, rows, axes), name="order, whichever way", against="which tasks")


def reordered(rows: Sequence[Observed]) -> list[Observed]:
    """Those of which the same tasks were tried in another order: only they tell what order does."""
    times = Counter(o.kind for o in rows)
    return [o for o in rows if times[o.kind] > 1]


def adjacent(o: Observed, a: str, b: str) -> float:
    """How often one task stands right before another."""
    return float(sum(pair == (a, b) for pair in itertools.pairwise(o.tasks)))


def one_hot(value: object, known: Sequence[object]) -> list[float]:
    """A column for each of the known values, 1 in the one that is meant."""
    return [float(value == other) for other in known]


def rivals(rows: Sequence[Observed], place: int, task: str) -> list[str]:
    """The tasks that come in that place of the same tasks as this one does: a search need not have tried all."""
    kinds = {o.kind for o in rows if o.tasks[place] == task}
    return sorted({o.tasks[place] for o in rows if o.kind in kinds} - {task})


def others(tasks: Sequence[str], task: str, compared: Sequence[str]) -> list[float]:
    """The weights of a task, against the mean of those that it is compared with if there are any."""
    return [1.0 if t == task else -1.0 / len(compared) if t in compared else 0.0 for t in tasks]
