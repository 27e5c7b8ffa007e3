"""A made-up study: the tables a finished search would leave, without training anything."""

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermsearch.curriculum import ARROW, ROOT_CURRICULUM
from dermsearch.papers.published import published
from dermsearch.results import Results, load
from dermsearch.results.tables.schema import SCHEMAS, build, write

TASKS = ("relative_location", "moco_v2", "odc")
SETTINGS = ({"lr": 0.03},)


def key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def plausible(curriculum: Sequence[str], rng: random.Random) -> float:
    """The published score of a curriculum where there is one."""
    known = published("aiseeme_table1")
    return known.get(ARROW.join(curriculum) or ROOT_CURRICULUM, 0.55 + 0.06 * len(curriculum) * rng.random())


def fabricate(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    longest: int = 3,
    seeds: Sequence[int] = (0,),
    failed: Mapping[str, str] | None = None,  # curriculum -> failed | pruned; what is below is dropped | not there
    reused: Sequence[str] = (),
    settings: Mapping[str, Sequence[dict[str, Any]]] | None = None,  # task -> what is searched, fixed by default
    values: Mapping[str, float] | None = None,  # curriculum -> score, the same for all seeds
    study: Mapping[str, Any] | None = None,
) -> Results:
    """Write a study of all curricula of the tasks and read it back."""
    failed, settings, values = failed or {}, settings or {}, values or {}
    rng = random.Random(1)
    stages, scores, trials = [], [], []

    def add_scores(key: str, curriculum: str, value: float, seed: int) -> None:
        for protocol, split, shift in [("knn", "val", 0.0), ("knn", "test", -0.02), ("linear", "val", 0.04)]:
            row = {"stage": key, "curriculum": curriculum, "protocol": protocol, "split": split, "seed": seed}
            row |= {"label": "diagnosis", "metric": "balanced_accuracy", "n": 400}
            v = value + shift
            scores.append(row | {"class": "", "value": v, "ci_low": v - 0.03, "ci_high": v + 0.028})
            scores.append(row | {"class": "mel", "metric": "auc", "value": 0.9})
            scores.append(row | {"class": "", "metric": "macro_f1", "value": v - 0.05})

    def grow(path: tuple[str, ...], chosen: tuple[dict[str, Any], ...], parents: dict[int, str], dead: str) -> None:
        for task in [t for t in tasks if t not in path]:
            for choice in settings.get(task, SETTINGS):
                visit((*path, task), (*chosen, choice), parents, dead)

    def visit(path: tuple[str, ...], chosen: tuple[dict[str, Any], ...], parents: dict[int, str], dead: str) -> None:
        curriculum = ARROW.join(path)
        keys = {seed: key_of(path, chosen, seed) for seed in seeds}
        status = "dropped" if dead else failed.get(curriculum, "done")
        base = values.get(curriculum, plausible(path, rng))
        for seed, key in keys.items():
            if dead == "pruned":
                continue
            stage = {"key": key, "parent": parents[seed], "depth": len(path), "curriculum": curriculum}
            stage |= {"task": path[-1], "settings": json.dumps(chosen[-1]), "seed": seed, "status": status}
            if dead:  # as the driver writes what a failure left untrained
                stages.append(stage | {"reused": False, "error": dead})
                continue
            stage |= {
                "reused": curriculum in reused,
                "seconds": 60.0,
                "epochs": 100,
                "device": "cpu",
                "workers": 1,
            }
            stages.append(stage | {"error": "the loss is not finite in epoch 3" if status == "failed" else None})
            if status == "done":
                noise = 0.0 if curriculum in values else rng.gauss(0, 0.008) * (len(seeds) > 1)
                add_scores(key, curriculum, base + noise, seed)
        searched = {f"{t}.{n}": v for t, c in zip(path, chosen, strict=True) for n, v in c.items() if t in settings}
        trials.append(
            {
                "trial": len(trials),
                "curriculum": curriculum,
                "settings": json.dumps(searched),
                "keys": list(keys.values()),
                "status": status,
                "seeds": len(seeds),
                "error": "pruned by median" if status == "pruned" and not dead else "",
            }
        )
        if len(path) < longest:
            grow(
                path,
                chosen,
                keys,
                dead or {"done": "", "pruned": "pruned"}.get(status, f"dropped: {curriculum} failed"),
            )

    for seed in seeds:
        value = values.get(ROOT_CURRICULUM, plausible((), rng))
        add_scores(f"root-{seed}", ROOT_CURRICULUM, value, seed)
    grow((), (), {seed: f"root-{seed}" for seed in seeds}, "")
    rows = {"trials": trials, "stages": stages, "epochs": [], "scores": scores}
    for name in SCHEMAS:
        write(build(name, rows.get(name, [])), folder / "tables" / f"{name}.arrow")
    objective = {"protocol": "knn", "metric": "balanced_accuracy", "label": "diagnosis"}
    (folder / "study.yaml").write_text(yaml.safe_dump({"objective": objective} | dict(study or {})))
    return load(folder)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Results]:
    """fabricate() in a folder of its own for every call."""
    numbers = itertools.count()
    return lambda **options: fabricate(tmp_path / f"study{next(numbers)}", **options)
