"""The commonest mistakes, word for word."""

from __future__ import annotations

import pytest
from study.damage import TEXT, refused

MESSAGES = [
    (
        ("sampler: grid", "sampler: tpe"),
        "study.yaml:27: search.trials: is missing: sampler 'tpe' needs to know how many, or a budget",
    ),
    (
        ("encoder: {name: resnet18}", "encoder: {name: resnet18, brances: shared}"),
        "study.yaml:9: encoder.brances: unknown field; did you mean 'branches'?",
    ),
    (("train:", "lr: 0.1\ntrain:"), "study.yaml:19: lr: unknown field; did you mean 'train.lr'?"),
    (
        ("curriculum:\n", "curiculum:\n"),
        "study.yaml:11: curiculum: unknown field; did you mean 'curriculum'? (1 more wrong: curriculum)",
    ),
    (("epochs: 4", "epochs: four"), "study.yaml:19: train.epochs: must be a whole number, not 'four'"),
    (("epochs: 4", "epochs: '4'"), "study.yaml:19: train.epochs: must be a whole number, not '4' (without quotes)"),
    (("epochs: 4", "epochs: 0"), "study.yaml:19: train.epochs: must be at least 1, not 0"),
    (("name: curriculum", "name: 2026"), "study.yaml:3: name: must be text, not 2026 (text goes in quotes)"),
    (
        ("sampler: grid", "sampler: gird"),
        "study.yaml:27: search.sampler: must be one of grid, random, tpe, curriculum_prior, gp, "
        "cmaes, nsgaii, nsgaiii, qmc, not 'gird'; did you mean 'grid'?",
    ),
    (
        ("resnet18}", "resnet-18}"),
        "study.yaml:9: encoder.name: 'resnet-18' is not a model of timm; did you mean 'resnet18'?",
    ),
    (
        ("moco_v2: {", "moco: {"),
        "study.yaml:16: curriculum.tasks.moco: 'moco' is not a task; did you mean 'moco_v2'?",
    ),
    (
        ("queue: 256", "queue: 100"),
        "study.yaml:16: curriculum.tasks.moco_v2.queue: 100 is not a multiple of the batch, 64",
    ),
    (
        ("queue: 256", "queue: {log: [64, 256]}"),
        "study.yaml:16: curriculum.tasks.moco_v2.queue: must be {choice: [...]} for sampler 'grid', not 'log', "
        "which goes with random and tpe",
    ),
    (
        ("clusters: 16", "clusters: 64"),
        "study.yaml:17: curriculum.tasks.odc.clusters: 64 clusters of at least 20 images (small) need 1280 "
        "training images; there are 420",
    ),
    (
        ("length: [1, 3]", "length: [1, 4]"),
        "study.yaml:12: curriculum.length: must be at most 3, the number of tasks, not 4; "
        "lower it or set repeats: true",
    ),
    (
        ("protocol: linear", "protocol: knnn"),
        "study.yaml:25: objective.protocol: must be one of downstream (knn, linear), not 'knnn'",
    ),
    (
        ("batch: 64", "batch: 65"),
        "study.yaml:19: train.batch: must be a multiple of compute.workers, 2, not 65",
    ),
    (("k: 20", "k: 20, k: 30"), "study.yaml:22: 'k' stands twice in the same section"),
    (
        ("k: 20}", "k: 20"),
        "study.yaml:23: not valid YAML: expected ',' or '}', but got ':'; what began in line 22 is not closed",
    ),
    (("  length", "\tlength"), "study.yaml:12: not valid YAML: a tab cannot indent a line; use spaces"),
]


@pytest.mark.parametrize(("change", "message"), MESSAGES, ids=[change[1].strip() for change, _ in MESSAGES])
def test_the_message_says_where_what_and_what_instead(change: tuple[str, str], message: str) -> None:
    assert change[0] in TEXT
    text = TEXT.replace(*change, 1)
    if "batch: 65" in text:
        text = text.replace("workers: 1", "workers: 2")
    assert refused(text) == message
