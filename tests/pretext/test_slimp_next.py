"""SLIMP in a curriculum: what goes on in the next stage, what is frozen there, and what is refused beforehand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pretext import tiny
from pretext.test_slimp import small, store
from pydantic import ValidationError

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, TABLES, Part
from dermsearch.models.nested import nested
from dermsearch.pretext.base import Setting
from dermsearch.pretext.slimp import Slimp
from dermsearch.testing.small import COLUMNS
from dermsearch.training import stage

__all__ = ["store"]


def test_the_next_stage_begins_with_what_this_one_hands_on(store: CaseStore) -> None:
    made = tiny.encoders("slimp")
    setting = tiny.Steps("slimp", store).learner.tasks["joint"].setting
    parts = stage.train_stage(
        tiny.recipe("slimp", epochs=1), made, store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    ).parts
    again = nested(parts[TABLES])
    assert all(torch.equal(v, parts[TABLES].state[n]) for n, v in again.state_dict().items())
    task = Slimp(made.backbones, Slimp.Config(**tiny.TASKS["slimp"]), setting)
    fresh = {n: v.clone() for n, v in task.nested.state_dict().items()}
    assert not all(torch.equal(v, fresh[n]) for n, v in again.state_dict().items())
    task = Slimp(made.backbones, task.config, replace(setting, artifact=parts))
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in task.nested.state_dict().items())
    assert tiny.train("moco_v2", store, epochs=1)[1]  # which hands on none


@pytest.mark.parametrize("config, expected", [
    ({"learnt": True}, (3.0, 7.0)),
    ({"learnt": True, "weight": 1.0}, (3.0,)),
    ({"learnt": True, "begin": "given", "outer_temperature": 0.2}, (2.0, 5.0)),
    ({}, ()),
])  # fmt: skip
def test_learnt_temperatures_go_on(store: CaseStore, config: dict[str, Any], expected: tuple) -> None:
    """Where the stage before left off, or as this one says; one that learns none has its own."""
    setting, made = tiny.Steps("slimp", store).learner.tasks["joint"].setting, tiny.encoders("slimp")
    told = {**tiny.TASKS["slimp"], "temperature": 0.5}
    before = Slimp(made.backbones, Slimp.Config(**told, learnt=True), setting)
    with torch.no_grad():
        for level, scale in {"inner": 3.0, "outer": 7.0}.items():
            before.nested.scales[level].fill_(math.log(scale))
    parts = {ENCODERS: made.part(), **before.hands_on()}
    after = Slimp(made.backbones, Slimp.Config(**{**told, **config}), replace(setting, artifact=parts))
    found = {level: float(scale.detach().exp()) for level, scale in after.nested.scales.items()}
    assert found == pytest.approx(dict(zip(("inner", "outer"), expected, strict=False)), rel=1e-6)
    older = {**parts, TABLES: Part({k: v for k, v in parts[TABLES].config.items() if k != "scales"}, {
        n: v for n, v in parts[TABLES].state.items() if not n.startswith("scales.")})}  # fmt: skip
    assert not nested(older[TABLES]).scales  # what was handed on before there were any
    again = Slimp(made.backbones, Slimp.Config(**told, learnt=True), replace(setting, artifact=older)).nested.scales
    assert [round(float(s.detach().exp()), 5) for s in again.values()] == [2.0, 2.0]


@pytest.mark.slow
def test_a_stage_trains_on_from_temperatures_that_another_learnt(store: CaseStore, monkeypatch) -> None:
    small(monkeypatch, learnt=True)
    made, given = tiny.encoders("slimp"), (store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU)
    first = stage.train_stage(tiny.recipe("slimp", epochs=2, lr=0.05), made, *given)
    left = {level: first.parts[TABLES].state[f"scales.{level}"].exp() for level in ("inner", "outer")}
    assert all(abs(float(x) - 2) > 0.01 for x in left.values())  # it moved away from 1 / 0.5
    given = store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    rows = stage.train_stage(tiny.recipe("slimp", epochs=1, lr=1e-9), made, *given, artifact=first.parts).history
    for level, scale in left.items():
        assert rows[0]["parts"][f"derm.{level}_scale"] == pytest.approx(float(scale), rel=1e-5)


def test_a_stage_may_read_fewer_columns_than_the_study_names(store: CaseStore) -> None:
    setting, made = tiny.Steps("slimp", store).learner.tasks["joint"].setting, tiny.encoders("slimp")

    def read(**given: Any) -> dict[str, list[str]]:
        task = Slimp(made.backbones, Slimp.Config(**tiny.TASKS["slimp"], **given), setting)
        levels = task.hands_on()[TABLES].config["levels"]
        assert {n: tuple(c["name"] for c in told["columns"]) for n, told in levels.items()} == task.names
        return {n: list(names) for n, names in task.names.items()}

    assert read() == {"lesion": ["diameter", "site"], "patient": ["age", "sex"]}
    assert read(columns="site, sex") == {"lesion": ["site"], "patient": ["sex"]}
    assert read(columns="sex,age", table="all", weight=1.0) == {"lesion": ["age", "sex"]}
    assert Slimp.Config(columns=" sex ,age,sex").columns == "sex, age"
    with pytest.raises(ValidationError, match="with commas between them, not 'age,,sex'"):
        Slimp.Config(columns="age,,sex")


def test_what_decides_nothing_of_a_stage_is_not_in_its_key() -> None:
    """Settings that came later: keys of stages that do not use them are what they were."""
    plain = Slimp.Config().model_dump(mode="json")
    assert not plain.keys() & {"outer_temperature", "begin", "columns"}
    for given in ({"learnt": True}, {"learnt": True, "begin": "given"}, {"outer_temperature": 0.1}, {"columns": "age"}):
        config = Slimp.Config(**given)
        told = config.model_dump(mode="json")
        assert Slimp.Config(**told) == config and plain != told
    assert Slimp.Config(begin="given").model_dump(mode="json") == plain  # nothing is learnt, so nothing begins


@pytest.mark.parametrize("backbone, frozen, learns", [
    ("test_vit", "blocks", ("cls_token", "pos_embed", "patch_embed.")),
    ("test_vit", "attention", ("cls_token", "pos_embed", "patch_embed.", "norm.", ".mlp.", ".norm1.", ".norm2.")),
    ("test_resnet", "blocks", ("conv1.0.", "conv1.1.")),
])  # fmt: skip
def test_what_is_frozen_stays(store: CaseStore, monkeypatch, backbone: str, frozen: str, learns: tuple) -> None:
    """After a stage only what is named has moved, of the encoders; of the tables' all but their blocks."""
    monkeypatch.setitem(tiny.BACKBONES, "slimp", backbone)
    first = tiny.encoders("slimp")
    given = store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    parts = stage.train_stage(tiny.recipe("slimp", epochs=1), first, *given).parts
    start = {n: v.clone() for n, v in first.backbones["derm"].state_dict().items()}
    small(monkeypatch, frozen=frozen)
    given = store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    after = stage.train_stage(tiny.recipe("slimp", epochs=1), first.train(), *given, artifact=parts).parts
    names = {n for n, _ in first.backbones["derm"].named_parameters()}
    for n, v in first.backbones["derm"].state_dict().items():
        moves = any(n.startswith(x) or (x.startswith(".") and x in n) for x in learns)
        if n in names or not moves:  # running statistics of frozen norms stay too
            assert torch.equal(v, start[n]) != moves, n
    for n, v in after[TABLES].state.items():
        still = ".blocks." in n and (frozen == "blocks" or ".attention." in n)
        if n.startswith("levels.") and not n.endswith("patient.unknown"):  # all patients are told of
            assert torch.equal(v, parts[TABLES].state[n]) == still, n


def test_what_is_fresh_is_not_frozen(store: CaseStore) -> None:
    """Encoders of tables learn as wholes where the stage before had none; random encoders are not kept at all."""
    setting, made = tiny.Steps("slimp", store).learner.tasks["joint"].setting, tiny.encoders("slimp")
    config = Slimp.Config(**tiny.TASKS["slimp"], frozen="blocks")
    with pytest.raises(UserError, match="frozen: blocks goes on from trained encoders; these"):
        Slimp(made.backbones, config, setting)
    task = Slimp(made.backbones, config, replace(setting, artifact={ENCODERS: made.part()}))
    assert not {id(p) for p in task.still} & {id(p) for p in task.nested.parameters()} and task.still


# Refusals --------------------------------------------------------------------------------------------------


def told(**given: Any) -> Setting:
    base = {"units": 48, "size": 32, "dim": 0, "batch": 16, "seed": 0, "columns": COLUMNS, "patients": 12,
            "names": {"diagnosis": ("a", "b", "c")}}  # fmt: skip
    return Setting(**{**base, **given})


@pytest.mark.parametrize("config, setting, message", [
    ({}, {"patients": 0}, "weight: must be 1, not 0.5: the cases' patients are not known"),
    ({}, {"patients": 1}, "weight: must be 1, not 0.5: all training cases are of one patient"),
    ({}, {"columns": ()}, "data.metadata: names no columns of the lesion, which slimp contrasts with its image$"),
    ({}, {"columns": COLUMNS[:2]}, "data.metadata: names no columns of the lesion, .*; table: all takes"),
    ({}, {"columns": COLUMNS[2:]}, "data.metadata: names no columns of the patient, such as age"),
    ({"lesions": 5}, {}, "lesions: must divide the 16 cases of a batch, not 5"),
    ({"lesions": 16}, {}, "lesions: must be at most 8, so that a batch of 16 cases holds two patients, not 16"),
    ({"lesions": 16}, {"patients": None}, "lesions: must be at most 8"),
    ({"width": 10, "heads": 4}, {}, r"width: must be a multiple of heads \(4\), not 10"),
    ({"learnt": True, "temperature": 2.0}, {}, "temperature: must be at most 1 where it is learnt, not 2"),
    ({"learnt": True, "outer_temperature": 5.0}, {}, "outer_temperature: must be at most 1 where it is learnt, not 5"),
    ({"learnt": True, "weight": 0.0, "temperature": 2.0}, {}, "temperature: must be at most 1"),
    ({"frozen": "attention"}, {}, "encoder.name: must be a ViT for slimp with frozen: attention, not 'resnet18'"),
    ({"columns": "age, sites"}, {}, "columns: 'sites' is not named in data.metadata; did you mean 'site'"),
    ({"columns": "age, sex"}, {}, "columns: names no columns of the lesion, .*; table: all takes"),
    ({"columns": "site"}, {}, "columns: names no columns of the patient, such as age"),
    ({"positive": "diagnos=b"}, {}, "positive: must be LABEL=CLASS of a label of .*did you mean 'diagnosis'"),
    ({"positive": "diagnosis=x"}, {}, "positive: 'x' is no class of 'diagnosis'; choose from: a, b, c"),
])  # fmt: skip
def test_what_cannot_be_is_refused(config: dict[str, Any], setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        Slimp.check(Slimp.Config(**{"lesions": 4, **config}), told(**setting))


@pytest.mark.parametrize("config, setting", [
    ({}, {}), ({"weight": 1.0}, {"patients": 0, "columns": COLUMNS[2:]}), ({"lesions": 0}, {}),
    ({"weight": 1.0, "lesions": 5}, {"patients": 0}), ({"weight": 1.0, "table": "all"}, {"columns": COLUMNS[:2]}),
    ({"frozen": "attention"}, {"encoder": "test_vit"}), ({"positive": "diagnosis=b"}, {}), ({}, {"patients": None}),
    ({"positive": "diagnosis=b"}, {"names": {}}), ({"columns": "site,age"}, {}),
    ({"temperature": 2.0}, {}), ({"learnt": True, "temperature": 1.0}, {}),
    ({"learnt": True, "weight": 1.0, "outer_temperature": 5.0}, {}), ({"columns": "site", "weight": 1.0}, {}),
    ({"columns": "age", "weight": 1.0, "table": "all"}, {}),
])  # fmt: skip
def test_what_can_be_is_not(config: dict[str, Any], setting: dict[str, Any]) -> None:
    Slimp.check(Slimp.Config(**{"lesions": 4, **config}), told(**setting))
