"""The stages of a study without their seeds: a lineage is a curriculum with the settings of each task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow.compute as pc

from dermsearch.curriculum import Curriculum
from dermsearch.results.tables.measure import Score
from dermsearch.results.tables.schema import PRETEXT, Results


class Key(NamedTuple):
    """What a lineage is told by."""

    curriculum: Curriculum
    settings: tuple[str, ...] = ()  # of each task, as JSON
    root: str = ""  # what it begins with, where a study has several roots

    @property
    def beginning(self) -> Key:
        """The root itself, judged without pre-training."""
        return Key(Curriculum(), (), self.root)


ROOT = Key(Curriculum())
Known = dict[tuple[str, Curriculum], list["Lineage"]]  # by root and tasks


@dataclass(frozen=True)
class Lineage:
    """A curriculum and the settings it was trained with; its seeds are its stages."""

    key: Key
    parent: Key  # the root's for a first task
    stages: tuple[dict[str, Any], ...]  # rows of the table, one per seed; none where training never began
    pruned: str = ""  # why it was ended before it was known which stage it would be

    @property
    def curriculum(self) -> Curriculum:
        return self.key.curriculum

    @property
    def status(self) -> str:
        """done as soon as one seed is; dropped where an ancestor failed before training began."""
        if self.pruned:
            return "pruned"
        found = {stage["status"] for stage in self.stages}
        return next((status for status in ("done", "failed", "pruned") if status in found), "dropped")

    @property
    def reused(self) -> bool:
        return bool(self.stages) and all(s["reused"] for s in self.stages)

    @property
    def error(self) -> str:
        """Why it, or some of its seeds, has no score."""
        if not self.stages:
            return self.pruned or "an earlier stage has no encoder"
        bad = [s for s in self.stages if s["status"] != "done"]
        where = len(bad) < len(self.stages) or len({(s["status"], s["error"]) for s in bad}) > 1
        bad = bad if where else bad[:1]  # one reason for all seeds is told once
        said = [(f"seed {s['seed']} {s['status']}: " if where else "") + (s["error"] or "") for s in bad]
        return "; ".join(text.removesuffix(": ") for text in said if text)


def lineages(results: Results) -> dict[Key, Lineage]:
    """All lineages of a study, those that a failure left untrained included."""
    stages = results.stages.filter(pc.field("kind") == PRETEXT).to_pylist()
    by_key = {s["key"]: s for s in stages}
    groups: dict[Key, list[dict[str, Any]]] = {}
    for stage in stages:
        settings = tuple(s["settings"] or "{}" for s in ancestry(stage, by_key))
        key = Key(Curriculum.parse(stage["curriculum"]), settings, stage["root"] or "")
        groups.setdefault(key, []).append(stage)
    found = {key: Lineage(key, above(key), tuple(rows)) for key, rows in groups.items()}
    return found | dropped(results.trials.to_pylist(), by_key, found)


def above(key: Key) -> Key:
    """The lineage that one goes on from, or its root."""
    if len(key.settings) < 2:
        return key.beginning
    return Key(key.curriculum.prefix(len(key.curriculum) - 1), key.settings[:-1], key.root)


def ancestry(stage: dict[str, Any], by_key: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages from the first task to this one."""
    chain = [stage]
    while chain[0]["parent"] in by_key:
        chain.insert(0, by_key[chain[0]["parent"]])
    return chain


def dropped(
    trials: Iterable[dict[str, Any]], trained: Mapping[str, Any], found: Mapping[Key, Lineage]
) -> dict[Key, Lineage]:
    """Proposed curricula of which no stage was started, hung below the stage that stopped them."""
    stopped = {(line.curriculum, line.key.root) for line in found.values() if line.status != "done"}
    out: dict[Key, Lineage] = {}
    known = by_curriculum(found.values())
    proposed = [(Curriculum.parse(trial["curriculum"]), trial["root"] or "", trial) for trial in trials]
    for curriculum, root, trial in sorted(proposed, key=lambda p: len(p[0])):
        keys = trial["keys"] or []
        if trial["status"] == "done" or any(key in trained for key in keys):
            continue
        if not keys and (curriculum, root) in stopped:
            continue  # the trial is that stage
        parent = stopper(curriculum, root, known)
        key = Key(curriculum, (*(parent.key.settings if parent else ()), trial["settings"] or "{}"), root)
        line = out[key] = Lineage(key, parent.key if parent else key.beginning, (), trial.get("error") or "")
        known.setdefault((root, curriculum), []).append(line)
    return out


def by_curriculum(lines: Iterable[Lineage]) -> Known:
    """Lineages by what they begin with and their tasks."""
    found: Known = {}
    for line in lines:
        found.setdefault((line.key.root, line.curriculum), []).append(line)
    return found


def stopper(curriculum: Curriculum, root: str, known: Known) -> Lineage | None:
    """The longest known beginning of a curriculum, one without an encoder before any other."""
    beginnings = (known.get((root, curriculum.prefix(length)), ()) for length in range(len(curriculum) - 1, 0, -1))
    begun = next((lines for lines in beginnings if lines), ())
    return next((line for line in begun if line.status != "done"), next(iter(begun), None))


def differences(keys: Iterable[Key]) -> dict[Key, dict[str, str]]:
    """By task, the settings that tell apart the lineages of one curriculum: {"moco_v2": "lr=0.03"}."""
    curricula: dict[Curriculum, list[Key]] = {}
    for key in keys:
        curricula.setdefault(key.curriculum, []).append(key)
    told: dict[Key, dict[str, str]] = {}
    for curriculum, same in curricula.items():
        told |= {key: {} for key in same}
        for i, task in enumerate(curriculum):
            flat = {key: flatten(json.loads(key.settings[i])) if i < len(key.settings) else {} for key in same}
            names = dict.fromkeys(name for values in flat.values() for name in values)
            varied = [n for n in names if len({repr(values.get(n)) for values in flat.values()}) > 1]
            short = {name: rounded([values.get(name) for values in flat.values()]) for name in varied}
            for key, values in flat.items():
                if text := ", ".join(f"{own(n, names)}={short[n][repr(values[n])]}" for n in varied if n in values):
                    told[key][task] = text
    return told


def own(name: str, names: Iterable[str]) -> str:
    """A setting without its section, where no other has that name."""
    last = name.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == last for other in names) > 1 else last


def rounded(values: Iterable[Any]) -> dict[str, str]:
    """Numbers in as few digits as tell them apart, three at least; by what Python calls each."""
    there = {repr(value): value for value in values}
    for digits in range(3, 18):
        told = {r: f"{v:.{digits}g}" if isinstance(v, float) else str(v) for r, v in there.items()}
        if len(set(told.values())) == len(told):
            break
    return told


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"optimizer.lr": 0.03}."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        out |= inner
    return out


def seed_values(line: Lineage, scores: Mapping[str, Score]) -> dict[int, float]:
    """The scores of a lineage by seed."""
    return {s["seed"]: scores[s["key"]].value for s in line.stages if s["key"] in scores}


def mean_difference(values: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """Mean over the seeds that both have of the difference; None where they share no seed."""
    shared = [seed for seed in values if seed in others]
    return fmean(values[seed] - others[seed] for seed in shared) if shared else None
