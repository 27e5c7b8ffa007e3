"""Every field of a study changes exactly the keys that it must: what decides a result, and nothing else."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dermsearch.search.space.checks import space_of
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.roots import Start, plant
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.keys import fit_key, judgement_key, root_key, segment_key, stage_key
from dermsearch.study.config import Compute, Objective, Search, Study, Train
from dermsearch.study.data import Data
from dermsearch.study.encoder import Encoder
from dermsearch.work.job import Cases

GOLDEN = Path(__file__).with_name("keys.json")
KINDS = ("root", "stage", "segment", "fit", "judgement")
ALL, TRAINED, JUDGED, NONE = set(KINDS), set(KINDS) - {"root"}, {"fit", "judgement"}, set[str]()
RAW: dict[str, Any] = {
    "name": "keys",
    "data": {"ours": {"cases": 80, "size": 32}, "theirs": {"cases": 60, "size": 32, "seed": 1}},
    "encoder": {"name": "resnet10t"},
    "curriculum": {"tasks": {"relative_location": {}, "moco_v2": {"queue": 64}}, "length": [1, 2]},
    "train": {"epochs": 4, "batch": 16, "precision": "fp32"},
    "downstream": {"knn@ours": {"k": 5}, "finetune@theirs": {"labelled": [5], "epochs": 3}},
    "objective": {"protocol": "knn@ours"},
    "search": {"pruner": "median", "rungs": [2]},
    "compute": {"engine": "inline"},
}
# Of every field another value, and the kinds of keys that it changes. `theirs` only judges.
FIELDS: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", NONE),
    "description": ("words", NONE),
    "published": ("aiseeme_table1", NONE),
    "logging": ([], NONE),
    "data.ours.domain": ("skin", NONE),  # in the cases' fingerprint, where it says anything
    "data.ours.source": ("synthetic", NONE),
    "data.ours.path": (None, NONE),
    "data.ours.mix": ([], NONE),  # in the fingerprint of what comes of it, as `without` is
    "data.ours.without": ([], NONE),
    "data.ours.weights": ("size", NONE),
    "data.ours.cases": (90, NONE),  # in the fingerprint too, as `seed` is
    "data.ours.drawn": ({"lesions": 4}, NONE),
    "data.ours.variant": ("b", NONE),
    "data.ours.seed": (5, NONE),
    "data.ours.size": (48, ALL),
    "data.ours.border": (0.1, ALL),
    "data.ours.normalise": ("derm7pt", ALL),
    "data.ours.modalities": (["clinic"], ALL),
    "data.ours.transductive": (True, ALL),
    "data.ours.labelled": ("20", {"judgement"}),
    "data.ours.metadata": (["age"], NONE),  # of what reads tables, below
    "data.ours.table": ("rows.arrow", NONE),  # in the cases' fingerprint, by its content
    "data.theirs.size": (48, JUDGED),
    "data.theirs.border": (0.1, JUDGED),
    "data.theirs.normalise": ("derm7pt", JUDGED),
    "data.theirs.labelled": ("20", NONE),  # its only protocol says it for itself
    "data.theirs.metadata": (["age"], NONE),
    "encoder.name": ("resnet18", ALL),
    "encoder.branches": ("separate", ALL),
    "encoder.weights": (None, NONE),  # by their content, below
    "curriculum.tasks": ({"relative_location": {}, "moco_v2": {"queue": 128}}, TRAINED),
    "curriculum.length": ([2, 2], NONE),
    "curriculum.order": ("listed", NONE),
    "curriculum.repeats": (True, NONE),
    "train.epochs": (5, TRAINED),
    "train.batch": (8, TRAINED),
    "train.accumulate": (2, TRAINED),
    "train.optimizer": ("lars", TRAINED),
    "train.lr": (0.123, TRAINED),
    "train.weight_decay": (0.123, TRAINED),
    "train.weight_decay_end": (0.123, TRAINED),
    "train.momentum": (0.123, TRAINED),
    "train.schedule": ("constant", TRAINED),
    "train.final_lr": (0.123, TRAINED),
    "train.milestones": ([0.5], TRAINED),
    "train.factor": (0.123, TRAINED),
    "train.warmup": (0.123, TRAINED),
    "train.clip": (0.123, TRAINED),
    "train.patience": (3, TRAINED),
    "train.knn_every": (1, NONE),  # only watches
    "train.precision": ("bf16", TRAINED),
    "downstream.knn@ours.k": (7, {"judgement"}),
    "downstream.finetune@theirs.epochs": (4, JUDGED),
    "downstream.finetune@theirs.labelled": ([20], JUDGED),
    "downstream.finetune@theirs.repeats": (2, JUDGED),
    "objective.protocol": ("knn@ours", NONE),
    "objective.mean": (["knn@ours", "finetune@theirs"], NONE),
    "objective.metric": ("auc", NONE),
    "objective.label": ("streaks", NONE),
    "objective.labelled": ("all", NONE),
    "search.sampler": ("random", NONE),
    "search.trials": (3, NONE),
    "search.budget": ({"stages": 3}, NONE),
    "search.seeds": ([7], ALL),
    "search.replicates": ("leaders", NONE),
    "search.sampler_seed": (9, NONE),
    "search.lag": (2, NONE),
    "search.learn_from": (["aiseeme_table1"], NONE),
    "search.candidates": (2, NONE),
    "search.pruner": ("halving", NONE),
    "search.rungs": ([3], {"segment"}),
    "compute.pixels": ("auto", NONE),  # another needs a GPU
    "compute.engine": ("ray", NONE),
    "compute.workers": (1, NONE),
    "compute.threads": (2, NONE),
    "compute.gpus": (1.0, NONE),
    "compute.concurrency": (2, NONE),
    "compute.retries": (7, NONE),
    "compute.compile": (True, NONE),
    "compute.save_every": (5.0, NONE),
    "compute.store": ("elsewhere", NONE),
}


def changed(field: str, value: Any) -> dict[str, Any]:
    """The study with another value of a field."""
    raw = json.loads(json.dumps(RAW))
    *path, last = field.split(".")
    at = raw
    for part in path:
        at = at.setdefault(part, {})
    at[last] = value
    return raw


def keys(raw: dict[str, Any], weights: str = "", of: str = "cases", task_version: int | None = None) -> dict[str, Any]:
    """The keys of a study's first curriculum, kind by kind."""
    study = Study.model_validate(raw)
    space = space_of(study)
    precision = "fp32" if study.train.precision == "auto" else study.train.precision
    sets = {name: Cases(data=data, fingerprint=f"{of} of {name}") for name, data in study.sets.items()}
    tree, judges = Tree(), Judges(study, sets, precision)
    planted = plant(tree, study, next(iter(sets.values())), [Start("", root.encoder, weights) for root in roots(study)])
    branches = Branches(space, tree, judges, study.search)
    proposal = next(p for p in space.every() if p.curriculum.tasks == ("relative_location", "moco_v2"))
    stage = branches.path(proposal, study.search.seeds[0])[-1]
    segment = stage.chain[0]
    return {
        "root": next(iter(planted)),
        "stage": stage.key,
        "segment": segment.key if segment is not stage else segment_key(stage.key, 1),
        "fit": [fit.key for fit in stage.fits],
        "judgement": [judges.key(n, j) for n in (stage, *stage.fits) for j in judges.of(n)],
    }


def roots(study: Study) -> tuple[Any, ...]:
    return study.encoder.roots


BEFORE = keys(RAW)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_the_keys_of_what_it_decides(field: str) -> None:
    value, expected = FIELDS[field]
    after = keys(changed(field, value))
    different = {kind for kind in KINDS if after[kind] != BEFORE[kind]}
    if field == "search.rungs":  # its stage is the same, though another part of it is looked at
        assert different == expected
    else:
        assert different == expected, f"{field} changes {different}"


def test_every_field_of_a_study_is_in_the_table() -> None:
    assert set(FIELDS) >= set(leaves(Study, ""))


def leaves(model: type[BaseModel], before: str) -> Iterator[str]:
    sections = {"encoder": Encoder, "train": Train, "objective": Objective, "search": Search, "compute": Compute}
    for name, field in model.model_fields.items():
        if name == "data":
            yield from leaves(Data, "data.ours.")
        elif name == "curriculum":
            yield from (f"curriculum.{each}" for each in field.annotation.model_fields)  # type: ignore[union-attr]
        elif name in sections and not before:
            yield from leaves(sections[name], f"{name}.")
        elif name != "downstream":
            yield before + name


def test_content_decides_and_not_where_it_lies() -> None:
    for after in (keys(RAW, weights="hash"), keys(RAW, of="other cases")):
        assert all(after[kind] != BEFORE[kind] for kind in KINDS)


def test_versions_are_in_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from dermsearch.evaluate.base import PROTOCOLS
    from dermsearch.pretext.base import find_task

    for of, expected in (
        (find_task("moco_v2"), TRAINED),
        (PROTOCOLS.find("knn"), {"judgement"}),
        (PROTOCOLS.find("finetune"), JUDGED),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(of, "version", of.version + 1)
            after = keys(RAW)
        assert {kind for kind in KINDS if after[kind] != BEFORE[kind]} == expected


def test_columns_are_in_the_keys_of_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from dermsearch.evaluate.base import PROTOCOLS
    from dermsearch.pretext.base import find_task

    knn = PROTOCOLS.find("knn")
    monkeypatch.setattr(find_task("moco_v2"), "tables", True)
    monkeypatch.setattr(knn, "nature", replace(knn.nature, needs=frozenset({"features", "tables"})))
    before, after = keys(RAW), keys(changed("data.ours.metadata", ["age"]))
    assert all(after[kind] != before[kind] for kind in TRAINED) and after["root"] == before["root"]


def test_draws_and_splits_have_judgements_of_their_own() -> None:
    judge = Judges(Study.model_validate(RAW), {}, "fp32").wanted[0]
    cases = Cases(data=Data(), fingerprint="x")
    own = [judge, judge.model_copy(update={"draw": 1}), judge.model_copy(update={"split": "test"})]
    assert len({each.key("stage", cases, "fp32", 0) for each in own}) == 3
    assert len({judge.key(of, cases, p, s) for of, p, s in [("a", "fp32", 0), ("b", "fp32", 0)]}) == 2
    assert judge.key("a", cases, "fp32", 0) != judge.key("a", cases, "bf16", 0)
    assert judge.key("a", cases, "fp32", 0) != judge.key("a", cases, "fp32", 1)


@pytest.mark.parametrize("make", [root_key, stage_key, segment_key, fit_key, judgement_key], ids=lambda f: f.__name__)
def test_nothing_that_a_key_is_made_of_is_left_out(make: Callable[..., str]) -> None:
    """Also what another part tells as well in every study of today, as a parent's key tells the seed."""
    given: dict[str, Any] = {name: f"some {name}" for name in inspect.signature(make).parameters}
    given |= {"data": Data()} if make is root_key else {}
    for name, value in given.items():
        other = Data(size=48) if name == "data" else f"other {value}"
        assert make(**{**given, name: other}) != make(**given), name


def test_a_key_is_what_it_was() -> None:
    """Golden keys of format 3. Who changes one on purpose raises a version and says so in the log."""
    assert json.loads(GOLDEN.read_text()) == BEFORE
