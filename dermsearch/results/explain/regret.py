"""What a search had found after how much training, with shared beginnings trained once and without; what it dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dermsearch.curriculum import Curriculum, titled
from dermsearch.results.tables.lineages import Key, Lineage, by_curriculum, lineages, seed_values, stopper
from dermsearch.results.tables.measure import Measure, Score, read_scores
from dermsearch.results.tables.schema import Results

DIGITS = 6  # of a number of stages: what is behind them is rounding


@dataclass(frozen=True)
class Portion:
    """A stage, or the first epochs of one that did not go on."""

    key: str  # of the stage
    stages: float  # 1, or the share of its epochs
    seconds: float


@dataclass(frozen=True)
class Level:
    """What one proposal trains for its k-th task: a stage per seed, and rates that were tried and not chosen."""

    trained: tuple[Portion, ...]
    value: float | None  # the curriculum up to here: mean over the seeds, None where a stage failed


@dataclass(frozen=True)
class Step:
    """The best score once so much has been trained."""

    stages: float
    seconds: float
    best: float

    @property
    def cost(self) -> str:
        """The stages as printed."""
        return f"{round(self.stages, 1):g}"


@dataclass(frozen=True)
class Dropped:
    """A curriculum without a score, and why."""

    curriculum: Curriculum
    root: str
    status: str  # failed | pruned | dropped
    error: str

    @property
    def name(self) -> str:
        """The curriculum, with its root before it where there are several."""
        return titled(self.root, str(self.curriculum))


def walks(results: Results, measure: Measure) -> list[list[Level]]:
    """Every proposal as the stages it needs, in the order in which proposals were made."""
    lines = lineages(results)
    scores, _ = read_scores(results, measure)
    begun, known = Begun(results), by_curriculum(lines.values())
    by_stage = {s["key"]: line for line in lines.values() for s in line.stages}
    found = []
    for trial in sorted(results.trials.to_pylist(), key=lambda t: t["trial"]):
        line = next((by_stage[key] for key in trial["keys"] or [] if key in by_stage), None)
        line = line or stopper(Curriculum.parse(trial["curriculum"]), trial["root"] or "", known)
        found.append([level(at, scores, begun) for at in path(line, lines)])
    told = {part.key for walk in found for at in walk for part in at.trained}
    for line in lines.values():  # a budget that ended the run leaves stages of proposals that are in no table
        if any(stage["key"] not in told for stage in line.stages):
            found.append([level(line, scores, begun)])
    return [walk for levels in found if (walk := [at for at in levels if at.trained])]


class Begun:
    """The segments of a study, as far as they cost something that no finished stage has in its account."""

    def __init__(self, results: Results) -> None:
        stages = {s["key"] for s in results.stages.to_pylist()}
        self.longest: dict[str, Portion] = {}  # by the key of the stage that was begun
        self.beside: dict[tuple[str, ...], list[Portion]] = {}  # rates, of which another one went on
        for segment in sorted(results.segments.to_pylist(), key=lambda s: s["until"]):
            share = segment["until"] / json.loads(segment["settings"])["train"]["epochs"]
            part = Portion(segment["stage"], share, segment["seconds"] or 0.0)
            self.longest[part.key] = part
            if part.key not in stages:
                self.beside.setdefault(but_for_rate(segment), []).append(part)

    def of(self, stage: Mapping[str, Any]) -> list[Portion]:
        """What a stage has taken, and the rates that were tried beside its own."""
        own = self.longest.get(stage["key"])
        seconds = stage["seconds"] or (own.seconds if own else 0.0)
        ended = stage["status"] in ("pruned", "dropped")
        whole = ([own] if own else []) if ended else [Portion(stage["key"], 1.0, seconds)]
        return [*whole, *self.beside.get(but_for_rate(stage), ())]


def but_for_rate(stage: Mapping[str, Any]) -> tuple[str, ...]:
    """What a stage and the rates tried for it have in common."""
    settings = json.loads(stage["settings"] or "{}")
    settings.get("train", {}).pop("lr", None)
    return stage.get("parent") or "", stage["task"], json.dumps(settings, sort_keys=True)


def path(line: Lineage | None, lines: Mapping[Key, Lineage]) -> list[Lineage]:
    """A lineage and all above it, the first task first."""
    chain: list[Lineage] = []
    while line is not None:
        chain.insert(0, line)
        line = lines.get(line.parent)
    return chain


def level(line: Lineage, scores: Mapping[str, Score], begun: Begun) -> Level:
    """The stages of a lineage; its value is known once every seed has come through."""
    values = seed_values(line, scores)
    known = fmean(values.values()) if values and len(values) == len(line.stages) else None
    return Level(tuple(part for stage in line.stages for part in begun.of(stage)), known)


def published_walks(scores: Mapping[tuple[str, ...], float]) -> list[list[Level]]:
    """The curricula of a paper's table, in its order, as if each had been proposed."""
    beginnings = [list(Curriculum(tasks).prefixes()) for tasks in scores]
    return [[Level((Portion(str(at), 1.0, 0.0),), scores.get(at.tasks)) for at in each] for each in beginnings]


def progress(walks: Sequence[Sequence[Level]], shared: bool = True) -> list[Step]:
    """What was found after each level of each proposal; unshared, every proposal trains its curriculum whole."""
    known: set[str] = set()
    steps: list[Step] = []
    stages, seconds, best = 0.0, 0.0, float("-inf")  # stages may be shares of one
    for walk in walks:
        for at in walk:
            new = [part for part in at.trained if not shared or part.key not in known]
            known |= {part.key for part in at.trained}
            stages, seconds = stages + sum(p.stages for p in new), seconds + sum(p.seconds for p in new)
            best = max(best, float("-inf") if at.value is None else at.value)
            if new:
                steps.append(Step(round(stages, DIGITS), seconds, best))
    return steps


def cost_to(steps: Sequence[Step], target: float) -> Step | None:
    """The first step that reaches a score."""
    return next((step for step in steps if step.best >= target - 1e-12), None)


def dropped(results: Results) -> list[Dropped]:
    """Every curriculum that was proposed and has no encoder, by what became of it."""
    bad = [line for line in lineages(results).values() if line.status != "done"]
    found = [
        Dropped(line.curriculum, line.key.root, line.status, line.error.removeprefix(f"{line.status}: "))
        for line in bad
    ]
    return sorted(found, key=lambda d: (ORDER.index(d.status), len(d.curriculum), d.root, d.curriculum.tasks))


ORDER = ["failed", "pruned", "dropped"]
