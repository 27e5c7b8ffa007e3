"""What a search had found after how much training, with shared beginnings trained once and without; what it dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dermsearch.results.lineages import ROOT, Lineage, lineages, seed_values, stopper
from dermsearch.results.measure import Measure, read_scores
from dermsearch.results.tables import ARROW, Results


@dataclass(frozen=True)
class Level:
    """The stages of one proposal that are its k-th task, one per seed."""

    keys: tuple[str, ...]
    seconds: tuple[float, ...]  # of each
    value: float | None  # the curriculum up to here: mean over the seeds, None where a stage failed


@dataclass(frozen=True)
class Step:
    """The best score once so much has been trained."""

    stages: int
    seconds: float
    best: float


@dataclass(frozen=True)
class Dropped:
    """A curriculum without a score, and why."""

    curriculum: str
    status: str  # failed | pruned | dropped
    error: str


def walks(results: Results, measure: Measure) -> list[list[Level]]:
    """Every proposal as the stages it needs, in the order in which proposals were made."""
    lines = lineages(results)
    scores, _ = read_scores(results, measure)
    by_stage = {s["key"]: line for line in lines.values() for s in line.stages}
    found = []
    for trial in sorted(results.trials.to_pylist(), key=lambda t: t["trial"]):
        line = next((by_stage[key] for key in trial["keys"] or [] if key in by_stage), None)
        line = line or stopper(trial["curriculum"], lines.values())
        found.append([level(at, scores) for at in path(line, lines) if at.stages])
    return [walk for walk in found if walk]


def path(line: Lineage | None, lines: Mapping[tuple[str, tuple[str, ...]], Lineage]) -> list[Lineage]:
    """A lineage and all above it, the first task first."""
    chain: list[Lineage] = []
    while line is not None:
        chain.insert(0, line)
        line = lines.get(line.parent) if line.parent != ROOT else None
    return chain


def level(line: Lineage, scores: Mapping[str, Mapping[str, float]]) -> Level:
    """The stages of a lineage; its value is known once every seed has come through."""
    values = seed_values(line, scores)
    known = fmean(values.values()) if values and len(values) == len(line.stages) else None
    return Level(tuple(s["key"] for s in line.stages), tuple(s["seconds"] or 0.0 for s in line.stages), known)


def published_walks(scores: Mapping[tuple[str, ...], float]) -> list[list[Level]]:
    """The curricula of a paper's table, in its order, as if each had been proposed."""
    return [
        [Level((ARROW.join(tasks[:k]),), (0.0,), scores.get(tasks[:k])) for k in range(1, len(tasks) + 1)]
        for tasks in scores
    ]


def progress(walks: Sequence[Sequence[Level]], shared: bool = True) -> list[Step]:
    """What was found after each level of each proposal; unshared, every proposal trains its curriculum whole."""
    trained: set[str] = set()
    steps: list[Step] = []
    stages, seconds, best = 0, 0.0, float("-inf")
    for walk in walks:
        for at in walk:
            new = [s for key, s in zip(at.keys, at.seconds, strict=True) if not shared or key not in trained]
            trained |= set(at.keys)
            stages, seconds = stages + len(new), seconds + sum(new)
            best = max(best, float("-inf") if at.value is None else at.value)
            if new:
                steps.append(Step(stages, seconds, best))
    return steps


def cost_to(steps: Sequence[Step], target: float) -> Step | None:
    """The first step that reaches a score."""
    return next((step for step in steps if step.best >= target - 1e-12), None)


def dropped(results: Results) -> list[Dropped]:
    """Every curriculum that was proposed and has no encoder, by what became of it."""
    bad = [line for line in lineages(results).values() if line.status != "done"]
    found = [Dropped(line.curriculum, line.status, line.error) for line in bad]
    return sorted(found, key=lambda d: (ORDER.index(d.status), d.curriculum.count(ARROW), d.curriculum))


ORDER = ["failed", "pruned", "dropped"]
