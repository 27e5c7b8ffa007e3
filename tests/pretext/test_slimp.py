"""SLIMP: known values of both losses, whose lesions count, its batches, and what goes on in the next stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny
from pretext.test_parity import check, steps
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.case import Column
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import Table
from dermsearch.models.contrast import info_nce
from dermsearch.models.nested import pooled
from dermsearch.pretext.base import Setting
from dermsearch.pretext.batch import Batch, epoch_order
from dermsearch.pretext.patients import patient_order
from dermsearch.pretext.slimp import Slimp
from dermsearch.training import stage

WHO = (0, 0, 1, 2, 2, 2)
U = ((3, 4), (1, 0), (0, 2), (4, 3), (-1, 1), (0, -5))
M = ((1, 0), (0, 1), (2, 2), (0, 3), (1, -1), (5, 0))
G = ((1, 0, 0, 1), (0, 1, 1, 0), (1, -1, 1, 0))
NUMBERED = (Column("lesion", "number", "lesion"), Column("patient", "number", "patient"))


def double(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


class Rows(nn.Module):
    """An encoder whose row for a table is the one that its first column numbers."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows, self.config = rows, {"columns": ["patient"]}

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        return self.rows[values[:, 0].long()]


class People:
    """A pool of six lesions of three patients; what they show are their features."""

    device = torch.device("cpu")

    def __init__(
        self, u: Tensor, missing: Sequence[int] = (), strangers: Sequence[int] = (), lacking: Sequence[int] = ()
    ) -> None:
        """Lesions without a table, patients without one, lesions without an image."""
        self.u, self.missing, self.strangers, self.lacking = u, missing, strangers, lacking

    def __len__(self) -> int:
        return len(WHO)

    def patients(self, units: np.ndarray) -> np.ndarray:
        return np.array(WHO)[units]

    def table(self, names: Sequence[str], units: np.ndarray) -> Table:
        return numbered(units, self.missing)

    def people(self, names: Sequence[str], patients: np.ndarray) -> Table:
        return numbered(patients, self.strangers)

    def there(self, units: np.ndarray) -> np.ndarray:
        return ~np.isin(units, self.lacking)


class Shown(Batch):
    """A batch whose views are the features themselves."""

    def view(self, view: Any, use: str, units: Any = None) -> Tensor:
        return self.pool.u[torch.from_numpy(self.own)]  # type: ignore[attr-defined]


def shown(units: Sequence[int], u: Tensor, **pool: Any) -> Batch:
    return Shown(np.array(units), People(u, **pool), 32, 0, 0, 0)  # type: ignore[arg-type]


def numbered(rows: np.ndarray, missing: Sequence[int]) -> Table:
    """One column that tells which row it is."""
    return Table(NUMBERED[:1], rows[:, None].astype(np.float32), ~np.isin(rows, missing)[:, None])


def bare(weight: float, u: Tensor, m: Tensor, g: Tensor, branches: Sequence[str] = ("derm",), **config: Any) -> Slimp:
    """A task whose encoders and projectors change nothing."""
    columns = NUMBERED if weight < 1 else NUMBERED[:1]
    setting = Setting(6, 32, 2, 6, 0, columns=columns, patients=3)
    settings = Slimp.Config(weight=weight, width=2, heads=1, out=2, **config)
    task = Slimp(nn.ModuleDict({b: nn.Identity() for b in branches}), settings, setting).double()
    of = task.nested
    of.levels["lesion"] = Rows(m)
    if weight < 1:
        of.levels["patient"] = Rows(g)
    for name in (n for n in ("table", "phenotype", "person") if getattr(of, n) is not None):
        setattr(of, name, nn.Identity())
    for heads in (of.image, of.merge):
        for b in heads:
            heads[b] = nn.Identity()
    return task


def outcome(weight: float, units: Sequence[int] = range(6), **more: Any) -> tuple[dict[str, float], list[Tensor]]:
    """The loss with its parts, and the gradients of image features, lesions' tables and patients' tables."""
    of = {k: more.pop(k) for k in ("missing", "strangers", "lacking") if k in more}
    rows = double(U), double(M), double(G)
    loss = bare(weight, *rows, **more)({"derm": shown(units, rows[0], **of)})["derm"]
    loss.value.backward()
    found = {name: float(part) for name, part in loss.parts.items()} | {"loss": float(loss.value.detach())}
    return found, [torch.zeros_like(x) if x.grad is None else x.grad for x in rows]


@pytest.mark.parametrize("weight, expected", [
    (0.0, 0.223646), (0.25, 2.201547), (0.5, 4.179448), (0.75, 6.157348), (1.0, 8.135249),
])  # fmt: skip
def test_the_whole_loss(weight: float, expected: float) -> None:
    found, _ = outcome(weight)
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    assert {name.partition("_")[0] for name in found} - {"loss"} == ({"inner"} if weight else set()) | (
        {"outer"} if weight < 1 else set()
    )
    for level in {name.partition("_")[0] for name in found} - {"loss"}:
        assert found[f"{level}_floor"] + found[f"{level}_above"] == pytest.approx(found[level])


def test_gradients_of_the_whole_loss() -> None:
    for found, expected in zip(outcome(0.5)[1], (
        ((-.179786, .156261), (-.070016, -.898171), (-.267938, -.015257), (.094618, -.096942), (.172215, .173842),
         (-.066462, .013451)),
        ((.064620, -.679728), (-.862941, -.080291), (.132117, -.116860), (-.263637, .019009), (-.152918, -.123903),
         (-.010006, .199122)),
        ((-.132733, -.319801, .089532, .132733), (.262719, .069543, -.069543, .019722),
         (.002965, -.010981, -.013947, -.010261)),
    ), strict=True):  # fmt: skip
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case, expected", [
    ({"temperature": 0.5}, 0.688044),
    ({"normalise_first": True}, 0.737651),
    ({"normalise_first": True, "temperature": 0.5}, 0.767441),
    ({"units": [0, 1, 2, 3, 5]}, 0.350909),
    ({"strangers": [1]}, 0.086240),
    ({"pool": "max"}, 1.128909),
    ({"pool": "attention"}, 0.223646),  # begins as the mean
    ({"units": [0, 1]}, 0.0),
    ({"strangers": [0, 1, 2]}, 0.0),
    ({"units": [0, 1, 0, 2, 2, 2, 3, 4, 5]}, 0.223646),  # what comes again counts once
    ({"units": [5, 2, 1, 0, 4, 3]}, 0.223646),
    ({"direction": 1.0}, (0.696273 + 0.017005 + 0.081056) / 3),
    ({"direction": 0.0}, (0.394220 + 0.152274 + 0.001050) / 3),
])  # fmt: skip
def test_known_losses_of_patients(case: dict[str, Any], expected: float) -> None:
    found, gradients = outcome(0.0, **case)
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    assert bool(gradients[2].any()) == (expected > 0)


@pytest.mark.parametrize("case, expected", [
    ({"units": [0, 1, 0, 2, 2, 2, 3, 4, 5]}, 8.135249),
    ({"units": [3, 0, 5, 1, 4, 2]}, 8.135249),
    ({"missing": range(6)}, 0.0),
    ({"lacking": range(6)}, 0.0),
])  # fmt: skip
def test_known_losses_of_lesions(case: dict[str, Any], expected: float) -> None:
    assert outcome(1.0, **case)[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_same_patient_negatives_can_be_dropped() -> None:
    found = info_nce(double(U), double(M), 10.0, torch.ones(6, dtype=torch.bool), kinds=torch.tensor(WHO))[0]
    assert float(found.detach()) == pytest.approx(7.222600, abs=1e-5)


def test_a_phenotype_is_the_mean_of_what_a_patients_lesions_tell() -> None:
    x, place = torch.cat([double(U), double(M)], 1), torch.tensor(WHO)
    expected = ((2, 2, 0.5, 0.5), (0, 2, 2, 2), (1, -1 / 3, 2, 2 / 3))
    np.testing.assert_allclose(pooled(x, place, 3).detach(), expected, atol=1e-12)
    largest = ((3, 4, 1, 1), (0, 2, 2, 2), (4, 3, 5, 3))
    np.testing.assert_allclose(pooled(x, place, 3, "max").detach(), largest, atol=1e-12)
    empty = pooled(x, place, 4)
    assert not empty[3].any() and torch.equal(empty[:3], pooled(x, place, 3))
    looks = nn.Linear(4, 1, bias=False).double()
    nn.init.constant_(looks.weight, 30.0)  # far below and far above nothing
    one = pooled(-x, place, 3, "attention", looks)
    torch.testing.assert_close(one[0], -x[1])
    twice = torch.cat([x, x[3:]]), torch.tensor([*WHO, 2, 2, 2])
    torch.testing.assert_close(pooled(*twice, 3), pooled(x, place, 3))  # a larger patient weighs no more


def test_a_lesion_without_a_table_or_image_still_tells_its_patient_what_it_has() -> None:
    whole, gappy = outcome(0.5)[0], outcome(0.5, missing=[3])[0]
    assert gappy["outer"] == pytest.approx(whole["outer"]) and gappy["inner"] != pytest.approx(whole["inner"])
    rows = double(U), double(M), double(G)
    task = bare(0.0, *rows, branches=("derm", "clinic"))

    def both(clinic: Tensor, *lacking: int) -> float:
        losses = task({"derm": shown(range(6), rows[0]), "clinic": shown(range(6), clinic, lacking=lacking)})
        return float(sum(x.value for x in losses.values()).detach())

    other = double([(9, 1) if i == 2 else row for i, row in enumerate(U)])
    assert both(rows[0]) == pytest.approx(0.223646, abs=1e-5)
    assert both(other) != pytest.approx(0.223646, abs=1e-5)
    assert both(other, 2) == both(rows[0], 2) == pytest.approx(0.223646, abs=1e-5)  # a stand-in tells nothing


def test_two_modalities_share_the_inner_loss() -> None:
    rows = double(U), double(M), double(G)
    task = bare(1.0, *rows, branches=("derm", "clinic"))
    found = task({"derm": shown(range(6), rows[0]), "clinic": shown(range(6), double(M))})
    assert float(found["derm"].value.detach()) == pytest.approx(8.135249 / 2, abs=1e-5)
    parts = found["derm"].parts
    assert float(parts["inner"]) == pytest.approx(float(sum(x.value for x in found.values()).detach()))
    assert not found["clinic"].parts


# Batches ---------------------------------------------------------------------------------------------------


PEOPLE = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 20])
OWN = np.arange(48)


def order(**given: Any) -> np.ndarray:
    told = {"seed": 1, "epoch": 0, "patients": PEOPLE, "lesions": OWN, "count": 96, "batch": 16, "each": 4}
    return patient_order(**{**told, **given})


def test_a_batch_holds_patients_with_lesions_of_each() -> None:
    found = order()
    assert len(found) == 96 and np.array_equal(found, order())
    assert not np.array_equal(found, order(epoch=1)) and not np.array_equal(found, order(seed=2))
    for batch in found.reshape(-1, 4, 4):
        people = PEOPLE[batch]
        assert (people == people[:, :1]).all() and len(set(people[:, 0].tolist())) == 4
        for units in batch:
            assert len(set(units.tolist())) == min(4, (PEOPLE[units[0]] == PEOPLE).sum())


def test_who_can_give_more_lesions_is_drawn_as_often_as_that() -> None:
    counts = [np.bincount(PEOPLE[order(count=16 * 400, by_lesions=by)[::4]], minlength=8) / 400 for by in (False, True)]
    assert counts[0].std() < 0.06 and counts[1][0] < 0.5 * counts[1][4]
    assert np.ptp(counts[1][3:]) < 0.15  # four lesions or twenty: no more than four come


def test_one_image_of_a_lesion_and_positive_ones_first() -> None:
    lesions = OWN // 2
    for units in order(lesions=lesions).reshape(-1, 4):
        distinct = len(set(lesions[units].tolist()))
        assert distinct == len(set(units.tolist())) == min(4, len(set(lesions[PEOPLE[units[0]] == PEOPLE].tolist())))
    rare = np.isin(OWN, [30, 40])
    found = order(first=rare, count=1600).reshape(-1, 4)
    held = np.isin(found, [30, 40]).any(1)
    assert held[PEOPLE[found[:, 0]] == 7].all() and not held.all()
    few = order(patients=np.array([0, 0, 1, -1, -1, -1]), lesions=np.arange(6), batch=16, count=32)
    assert len(few) == 32 and set(few.tolist()) <= set(range(6))  # fewer patients than a batch wants


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def small(monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    monkeypatch.setitem(tiny.TASKS, "slimp", {**tiny.TASKS["slimp"], **config})


def test_without_patients_it_is_plain_contrast_to_the_bit(store: CaseStore, monkeypatch) -> None:
    small(monkeypatch, weight=1.0, lesions=0)
    run = tiny.Steps("slimp", store)
    task = run.learner.tasks["joint"]
    assert not any("patient" in n or "person" in n or "phenotype" in n or "merge" in n for n in task.state_dict())
    planned = task.plan_epoch(3, run.pools, 64)
    assert np.array_equal(planned["derm"], epoch_order(7, 3, 48, 64, False))
    batches = run.batches()
    found, of = task(batches), task.nested
    table = next(iter(batches.values())).table(["diameter", "site"])
    everyone = torch.ones(tiny.BATCH, dtype=torch.bool)
    w = of.table(of.levels["lesion"](*table))
    for b, batch in batches.items():
        z = of.image[b](task.backbones[b](batch.view(task.view, "view")))
        assert torch.equal(found[b].value, info_nce(z, w, 1 / 0.5, everyone & table[1].any(1))[0] / 2)


def test_batches_are_of_patients_in_training_and_validation(store: CaseStore, monkeypatch) -> None:
    run = tiny.Steps("slimp", store)
    task, pool = run.learner.tasks["joint"], run.pools["derm"]
    plans = [task.plan_epoch(0, run.pools, 64), task.plan_epoch(1, run.pools, 64), task.plan_heldout(run.pools, 64)]
    for plan in plans:
        assert np.array_equal(plan["derm"], plan["clinic"])
        who = pool.patients(plan["derm"]).reshape(-1, 4)
        assert (who == who[:, :1]).all()
    assert not np.array_equal(plans[0]["derm"], plans[1]["derm"]) and np.array_equal(plans[0]["derm"], plans[2]["derm"])
    asked: list[bool] = []
    monkeypatch.setattr(
        "dermsearch.pretext.slimp.patient_order", lambda *given: asked.append(given[7]) or patient_order(*given)
    )
    for how in ("uniform", "by_lesions"):
        small(monkeypatch, patients=how)
        tiny.Steps("slimp", store).learner.tasks["joint"].plan_epoch(0, run.pools, 64)
    assert asked == [False, True]
    small(monkeypatch, positive="diagnosis=b", lesions=1)
    order = tiny.Steps("slimp", store).learner.tasks["joint"].plan_epoch(0, run.pools, 64)["derm"]
    assert (pool.labels("diagnosis", order) == 1).all()  # everybody has one


def test_validation_is_looked_at_in_patients(store: CaseStore) -> None:
    asked: list[np.ndarray] = []
    whole = Slimp.plan_heldout

    def plan(self: Slimp, pool: Any, count: int) -> dict[str, np.ndarray]:
        found = whole(self, pool, count)
        asked.append(pool["derm"].patients(found["derm"]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Slimp, "plan_heldout", plan)
        made, recipe = tiny.encoders("slimp"), tiny.recipe("slimp", patience=3, epochs=2)
        rows = tiny.ROWS[:32], tiny.ROWS[32:]
        given = recipe, made, store, rows[0], tiny.Kept(), print, tiny.CPU
        history = stage.train_stage(*given, heldout=rows[1]).history
    assert all(np.isfinite(row["val_loss"]) for row in history) and len(asked) == 2
    assert all((who.reshape(-1, 4) == who.reshape(-1, 4)[:, :1]).all() for who in asked)


@pytest.mark.parametrize("config", [
    {"weight": 0.0}, {"weight": 1.0}, {"aggregate": "projections"}, {"aggregate": "projections", "weight": 0.0},
    {"pool": "max"}, {"pool": "attention"}, {"tokens": "trace", "missing": "zero", "readout": "cls"},
    {"corrupt": 0.3}, {"equal": "drop"}, {"learnt": True}, {"table": "all"}, {"patients": "by_lesions"},
    {"normalise_first": True}, {"direction": 1.0}, {"lesions": 8, "positive": "diagnosis=c"},
])  # fmt: skip
def test_every_setting_trains_all_that_it_builds(store: CaseStore, monkeypatch, config: dict[str, Any]) -> None:
    """Whatever is built has a gradient, as several processes need it."""
    small(monkeypatch, **config)
    run = tiny.Steps("slimp", store)
    first = run.step()
    assert np.isfinite(first)
    run.backward()
    assert all(p.grad is not None for p in run.learner.parameters())
    levels = {level for level, without in (("inner", 0.0), ("outer", 1.0)) if config.get("weight") != without}
    assert run.losses["derm"].parts.keys() >= {f"{level}_{of}" for level in levels for of in ("floor", "above")}


def test_a_learnt_temperature_stays_within_its_bounds(store: CaseStore, monkeypatch) -> None:
    small(monkeypatch, learnt=True)
    run = tiny.Steps("slimp", store, lr=100.0)
    task = run.learner.tasks["joint"]
    assert [round(float(s.detach().exp()), 4) for s in task.nested.scales.values()] == [2.0, 2.0]
    for _ in range(3):
        run.step()
        assert all(0 <= float(s.detach()) <= np.log(100) + 1e-6 for s in task.nested.scales.values())


def test_a_share_of_values_is_other_cases(store: CaseStore, monkeypatch) -> None:
    small(monkeypatch, corrupt=0.4)
    run = tiny.Steps("slimp", store)
    batch = next(iter(run.batches().values()))
    task = run.learner.tasks["joint"]
    plain = batch.pool.table(["diameter", "site"], batch.units)
    found, again = task.lesion_table(batch), task.lesion_table(batch)
    assert np.array_equal(found.values, again.values)
    assert 0 < (found.values[:, 0] != plain.values[:, 0]).mean() < 0.8
    everybody = batch.pool.table(["diameter"], tiny.ROWS).values
    assert np.isin(found.values[:, 0], everybody).all()


# Several processes -----------------------------------------------------------------------------------------


def cut(units: list[int], config: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradients of lesions whose patients lie on several processes."""
    rows = double(U), double(M), double(G)
    task = bare(0.5, *rows, **config)
    found = task({"derm": shown(units, rows[0], missing=[4])})["derm"]
    found.value.backward()
    # What the trainer does with gradients: their mean over processes. Features of a lesion are on one of them.
    return {
        "loss": float(world.reduce_sum(found.value.detach()) / world.size()),
        "gradients": [world.reduce_sum(x.grad) / world.size() for x in rows],
    }


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"pool": "max"}, {"pool": "attention"}, {"equal": "drop"}])
def test_a_patient_may_be_cut(two: Group, four: Group, config: dict[str, Any]) -> None:
    units = [3, 0, 2, 4, 1, 5, 3, 2]  # patients 2 and 0 on both sides of every cut, and lesions that come again
    one = cut(units, config)
    for group in (two, four):
        for many in group(cut, units, config):
            assert many["loss"] == pytest.approx(one["loss"], rel=1e-9)
            for a, b in zip(one["gradients"], many["gradients"], strict=True):
                torch.testing.assert_close(a, b)


def planned(folder: str, modalities: tuple[str, ...], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps on batches as the task plans them, with cases that come again."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch, lesions=8, **config)
        whole = tiny.Steps.batches

        def batches(self: tiny.Steps) -> dict[str, Any]:
            order = self.learner.orders(self.at, self.pools, tiny.BATCH)
            return {b: replace(batch, units=order[b]) for b, batch in whole(self).items()}

        patch.setattr(tiny.Steps, "batches", batches)
        return steps("slimp", folder, modalities)


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"pool": "attention", "learnt": True, "corrupt": 0.3}])
def test_planned_batches_on_several_processes(tmp_path, two: Group, four: Group, config: dict[str, Any]) -> None:
    store = tiny.make_store(tmp_path / "store", missing={"clinic": [1, 5, 9, 30], "derm": [2, 44]})
    for group, modalities in ((two, ("derm", "clinic")), (four, ("derm",))):
        given = str(store.folder), modalities, config
        check(planned(*given), group(planned, *given))
