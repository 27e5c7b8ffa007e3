"""What an explanation is made of: curricula with their scores, from a study's tables or from a paper's."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np

from dermsearch.curriculum import BASELINES, Curriculum
from dermsearch.errors import UserError, nearest
from dermsearch.papers.published import IMAGENET, TABLES, published, table
from dermsearch.results.board.about import PATIENTS, about
from dermsearch.results.board.differences import drawn
from dermsearch.results.board.leaderboard import Row, leaderboard, ordering
from dermsearch.results.drawing import quantity
from dermsearch.results.explain.importance import Sample, published_samples, samples
from dermsearch.results.explain.luck import Luck
from dermsearch.results.explain.observed import Observed, Replicate
from dermsearch.results.explain.regret import Dropped, Level, dropped, published_walks, walks
from dermsearch.results.tables.schema import Results, load


@dataclass(frozen=True)
class Evidence:
    """All that an explanation is made of."""

    title: str
    quantity: str
    curricula: list[Observed]
    walks: list[list[Level]]  # proposals in the order in which they were made
    samples: list[Sample]
    dropped: list[Dropped] = field(default_factory=list)
    proposals: dict[str, int] = field(default_factory=dict)  # how many ended how
    caveats: str = ""
    cases: str = ""  # how many judge: "n = 385 cases"
    groups: str = PATIENTS  # what their spread is over: lesions or images where patients are not known

    @cached_property
    def luck(self) -> Luck | None:
        """How uncertain scores are by luck; None where there are not two seeds to tell it by."""
        return Luck.of(self.curricula)

    @property
    def tasks(self) -> list[str]:
        """Every task that occurs, in alphabetical order."""
        return sorted({task for o in self.curricula for task in o.tasks})

    @property
    def seeds(self) -> list[Replicate]:
        """Every seed of every root that occurs."""
        return sorted({seed for o in self.curricula for seed in o.values})

    @property
    def chains(self) -> list[Observed]:
        """The curricula of two tasks or more: those that have an order."""
        return [o for o in self.curricula if len(o.tasks) > 1]


def gather(
    source: str | Path, protocol: str | None = None, metric: str | None = None, label: str | None = None
) -> Evidence:
    """Read a study's folder, or a published table of curricula by its name."""
    name = str(source)
    if os.path.isdir(name):
        return from_study(load(name), protocol, metric, label)
    if name in TABLES:
        if asked := next((o for o, v in [("protocol", protocol), ("metric", metric), ("label", label)] if v), None):
            raise UserError(f"--{asked}: goes with a study's folder; {name} holds one number of each curriculum")
        return from_published(name)
    raise UserError(f"{name}: neither the folder of a study nor a published table; {nearest(name, TABLES)}")


def from_study(
    results: Results, protocol: str | None = None, metric: str | None = None, label: str | None = None
) -> Evidence:
    """What a study's tables hold."""
    rows = [row for row in leaderboard(results, protocol, metric, label) if row.curriculum not in BASELINES]
    rows = [row for row in rows if row.values]
    if not rows:
        raise UserError(f"{results.folder}: no curriculum has been scored yet")
    measure = rows[0].measure
    # Roots are not other settings but other replicates: what one of them is above the others is no effect of a task.
    joined: dict[tuple[Curriculum, tuple[str, ...], str], dict[Replicate, float]] = defaultdict(dict)
    for row in rows:
        values = {(row.root, seed): value for seed, value in zip(row.seeds, row.values, strict=True)}
        joined[row.tasks, row.settings, row.order] |= values
    found: dict[tuple[Curriculum, str], list[dict[Replicate, float]]] = defaultdict(list)
    for (curriculum, _, mark), values in zip(joined, level_seeds([*joined.values()]), strict=True):
        found[curriculum, mark].append(values)
    resampled, of = on_patients(results, rows), defaultdict[tuple[Curriculum, str], list[Row]](list)
    for row in rows:
        of[row.tasks, row.order].append(row)
    curricula = [
        Observed(c[0].tasks, together(values), c[1], resampled.get(c), fmean(row.error_of_patients for row in of[c]))
        for c, values in found.items()
    ]
    proposals = Counter(results.trials["status"].to_pylist())
    return Evidence(
        results.study.get("name") or results.folder.name,
        quantity(measure) + f", {measure.judge}",
        sorted(curricula, key=lambda o: (len(o.tasks), o.tasks)),
        walks(results, measure),
        samples(results, measure),
        dropped(results),
        dict(proposals),
        measure.caveats or "",
        f"n = {known.cases.removesuffix(' of ')}" if (known := about(results, measure)).cases else "",
        known.groups,
    )


def on_patients(results: Results, rows: Sequence[Row]) -> dict[tuple[Curriculum, str], np.ndarray]:
    """The scores of curricula on resampled patients, the mean over seeds and settings, where predictions are kept."""
    of_stage = drawn(results, rows[0].measure)
    found: dict[tuple[Curriculum, str], list[np.ndarray]] = defaultdict(list)
    for row in rows:
        if of_stage and all(key in of_stage for key in row.keys):
            each = [np.mean(list(of_stage[key].values()), axis=0)[1:] for key in row.keys]
            found[row.tasks, row.order].append(np.mean(each, axis=0))
    return {curriculum: np.mean(values, axis=0) for curriculum, values in found.items()}


def level_seeds(scores: Sequence[dict[Replicate, float]]) -> list[dict[Replicate, float]]:
    """The scores by seed less what their seed is above or below the others, where some lack a seed.

    Else a curriculum that only has the lucky seed would look the better for it.
    """
    seeds = {seed for values in scores for seed in values}
    whole = [values for values in scores if len(values) == len(seeds)]
    if not whole or len(whole) == len(scores):
        return list(scores)
    above = {seed: fmean(values[seed] - fmean(values.values()) for values in whole) for seed in seeds}
    return [{s: v - above[s] for s, v in values.items()} for values in scores]


def together(settings: Sequence[dict[Replicate, float]]) -> dict[Replicate, float]:
    """A curriculum's score in every seed: the mean over its settings. Where one lacks a seed its mean stands in.

    Else a seed that only the better settings have would look the better for it.
    """
    seeds = sorted({seed for values in settings for seed in values})
    return {seed: fmean(v.get(seed, fmean(v.values())) for v in settings) for seed in seeds}


def from_published(name: str) -> Evidence:
    """A paper's table: one run of each curriculum, in the table's order."""
    form = table(name)
    scores = {Curriculum.parse(c).tasks: v for c, v in published(name).items() if c not in (*BASELINES, IMAGENET)}
    single = {tasks[0]: value for tasks, value in scores.items() if len(tasks) == 1}
    marks = {tasks: ordering(Curriculum(tasks), single) for tasks in scores}
    curricula = [Observed(tasks, {("", 0): value}, marks[tasks]) for tasks, value in scores.items()]
    return Evidence(
        form.title,
        f"{form.quantity}, {form.data} (%)",
        curricula,
        published_walks(scores),
        published_samples(scores),
        caveats="the paper gives one run of each curriculum and no spread",
    )
