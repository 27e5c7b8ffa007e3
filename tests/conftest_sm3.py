"""A made-up SM3 study: the tables that a finished search over fusions and relations would leave."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dermsearch.curriculum import RANDOM_WEIGHTS, ROOT_CURRICULUM
from dermsearch.data.domain import SKIN
from dermsearch.results import Results, load
from dermsearch.results.tables.schema import SCHEMAS, build, write

CONTRAST, BOTH = "paired_contrast", "paired_contrast > pseudo_labels"
NUMBERS = {"auc": 0.7, "recall": 0.4, "specificity": 0.9, "precision": 0.6}
PROTOCOLS = ("linear", "linear_handover", "finetune", "majority", "stratified")


def sm3_study(
    folder: Path,
    fusions: Sequence[str] = ("none", "concat", "sep_shared", "sep_sep"),
    relations: Sequence[str] = ("no_proj", "proj", "msa", "tel", "te"),
    values: Mapping[str, Sequence[float]] | None = None,  # "sep_sep", "tel" or a root: AUC of every class, per seed
    failed: Mapping[str, str] | None = None,  # fusion or relation -> why
    after: str = "sep_sep",  # the fusion that relations follow
    seeds: Sequence[int] = (0,),
    splits: Sequence[str] = ("val",),
    study: Mapping[str, Any] | None = None,
    caveats: str = "",
    other: Sequence[tuple[str, float]] = (),  # other curricula of one task, with their score
) -> Results:
    """Write such a study and read it back. An AUC a of a label's class is followed by numbers that a decides."""
    values, failed = values or {}, failed or {}
    stages: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []

    def judge(stage: str, curriculum: str, auc: float, seed: int) -> None:
        own = {"stage": stage, "curriculum": curriculum, "seed": seed, "caveats": caveats}
        for p, protocol in enumerate(PROTOCOLS):
            for s, split in enumerate(splits):
                shift = 0.01 * p - 0.1 * s
                row = own | {"protocol": protocol, "split": split, "n": 203}
                whole = {"metric": "balanced_accuracy", "class": ""} | ends(auc + shift)
                scores.extend(row | whole | {"label": label} for label in ("diagnosis", "mean"))
                for metric, base in NUMBERS.items():
                    value = auc + shift + base - NUMBERS["auc"]
                    for i, (label, cls) in enumerate(SKIN.named.items()):
                        scores.append(row | {"label": label, "class": cls, "metric": metric} | ends(value + 0.001 * i))
                    scores.append(row | {"label": "mean", "class": "", "metric": f"named_{metric}"} | ends(value))
        for split, n in (("train", 560), ("val", 120)):
            row = own | {"protocol": "pairs", "split": split, "label": "pairs", "n": n}
            for cls in ("derm to clinic", "clinic to derm", ""):
                rank = 1 + 400 * (1 - auc) ** 2
                scores.append(row | {"class": cls, "metric": "mean_rank"} | ends(rank, 3))
                scores.append(row | {"class": cls, "metric": "acc_at_1"} | ends(auc / 2))
                scores.append(row | {"class": cls, "metric": "acc_at_5"} | ends(auc / 1.25))

    def add(curriculum: str, parents: Mapping[int, str], config: Mapping[str, Any], name: str) -> dict[int, str]:
        keys = {seed: f"{name}-{seed}" for seed in seeds}
        aucs = values.get(name, [0.7 + 0.01 * len(stages) + 0.02 * i for i in range(len(seeds))])
        for i, (seed, key) in enumerate(keys.items()):
            error = failed.get(name)
            stage = {"key": key, "parent": parents[seed], "curriculum": curriculum, "seed": seed, "error": error}
            stage |= {"settings": json.dumps({"config": config, "train": {"lr": 1e-3}}), "reused": False}
            stage |= {"depth": curriculum.count(">") + 1, "task": curriculum.split(" > ")[-1]}
            stages.append(stage | {"status": "failed" if error else "done"})
            if not error:
                judge(key, curriculum, aucs[i], seed)
        trials.append({"curriculum": curriculum, "keys": list(keys.values()), "status": "done", "settings": "{}"})
        return keys

    roots = {seed: f"root-{seed}" for seed in seeds}
    for i, seed in enumerate(seeds):
        judge(roots[seed], ROOT_CURRICULUM, values.get(ROOT_CURRICULUM, [0.55] * 9)[i], seed)
        if (study or {}).get("encoder"):
            judge(f"random-{seed}", RANDOM_WEIGHTS, values.get(RANDOM_WEIGHTS, [0.5] * 9)[i], seed)
    above = {name: add(CONTRAST, roots, {"fusion": name, "temperature": 0.1}, name) for name in fusions}
    for name in relations:
        add(BOTH, above[after], {"relation": name, "width": 512}, name)
    for name, value in other:
        for i, seed in enumerate(seeds):
            key = f"{name}-{value}-{seed}"
            stage = {"key": key, "parent": roots[seed], "depth": 1, "curriculum": name, "task": name, "seed": seed}
            stages.append(stage | {"settings": json.dumps({"lr": value}), "status": "done", "reused": False})
            judge(key, name, value + 0.01 * i, seed)
    rows = {"trials": trials, "stages": stages, "epochs": [], "scores": scores}
    for name in SCHEMAS:
        write(build(name, rows.get(name, [])), folder / "tables" / f"{name}.arrow")
    objective = {"protocol": "linear", "metric": "balanced_accuracy", "label": "mean"}
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "sm3", "objective": objective} | dict(study or {})))
    return load(folder)


def ends(value: float, half: float = 0.04) -> dict[str, float]:
    """A value with an interval around it."""
    return {"value": value, "ci_low": value - half, "ci_high": value + half if math.isfinite(value) else value}
