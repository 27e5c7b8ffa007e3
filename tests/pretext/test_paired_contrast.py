"""SM3's first task: its known values, its definition written out, its fusions, and cases without a partner."""

import math

import pytest
import torch
from pretext import tiny
from torch import Tensor, nn

from dermsearch.data.store.pool import PairedPool
from dermsearch.errors import UserError
from dermsearch.pretext.base import Setting
from dermsearch.pretext.paired_contrast import PairedContrast, equation_4, projector

DERM = ((1.0, 0.0), (0.0, 1.0)), ((0.8, 0.6), (0.0, 1.0))
CLINIC = ((0.6, 0.8), (0.0, 1.0)), ((1.0, 0.0), (0.6, 0.8))
SETTING = Setting(units=100, size=32, dim=2, batch=10, seed=0, modalities=("derm", "clinic"))


def views(rows: tuple) -> tuple[Tensor, Tensor]:
    one, two = (torch.tensor(r, dtype=torch.float64) for r in rows)
    return one, two


def bare(**config) -> PairedContrast:
    """A task whose projectors change nothing."""
    task = PairedContrast(nn.ModuleDict({"derm": nn.Identity(), "clinic": nn.Identity()}), settings(**config), SETTING)
    for heads in (task.within, task.across):
        for name in heads:
            heads[name] = nn.Identity()
    return task


def settings(**config) -> PairedContrast.Config:
    return PairedContrast.Config(**{"temperature": 0.5, **config})


def everyone(n: int = 2) -> Tensor:
    return torch.ones(n, dtype=torch.bool)


@pytest.mark.parametrize("pairing, expected", [(0, 0.814799), (1, 0.648711), (2, 0.731755)])
@pytest.mark.parametrize("fusion", ["sep_shared", "sep_sep"])
def test_known_cross_terms(fusion: str, pairing: int, expected: float) -> None:
    found = bare(fusion=fusion, pairing=pairing).cross({"derm": views(DERM), "clinic": views(CLINIC)}, everyone())
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature, expected", [(0.5, 0.930985), (0.1, 0.075389)])
def test_the_printed_equation_with_its_repaired_denominator(temperature: float, expected: float) -> None:
    assert float(equation_4(views(DERM), views(CLINIC), temperature, everyone())) == pytest.approx(expected, abs=1e-6)
    task = bare(cross="printed", temperature=temperature)
    found = task.cross({"derm": views(DERM), "clinic": views(CLINIC)}, everyone())
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_printed_equation_term_by_term() -> None:
    generator = torch.Generator().manual_seed(0)
    derm, clinic = ([torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2)] for _ in range(2))
    d, c, e = (nn.functional.normalize(z, dim=1) for z in (derm[0], *clinic))
    total = 0.0
    for i in range(4):
        alike = sum(math.exp(float(d[i] @ d[j]) / 0.2) for j in range(4) if j != i)
        for z in (c, e):
            total -= math.log(
                math.exp(float(d[i] @ z[i]) / 0.2) / (sum(math.exp(float(d[i] @ z[j]) / 0.2) for j in range(4)) + alike)
            )
    assert float(equation_4(tuple(derm), tuple(clinic), 0.2, everyone(4))) == pytest.approx(total / 4, rel=1e-10)


@pytest.mark.parametrize("temperature, total", [(0.5, 2.423698)])
def test_the_whole_loss(temperature: float, total: float) -> None:
    class Shown:
        """A batch whose views are the features themselves."""

        there = everyone()

        def __init__(self, rows: tuple) -> None:
            self.rows = rows

        def views(self, views: list, use: str) -> list[Tensor]:
            return list(views_of(self.rows))

    views_of = views
    task = bare(temperature=temperature)
    losses = task({"derm": Shown(DERM), "clinic": Shown(CLINIC)})
    assert float(sum(loss.value for loss in losses.values())) == pytest.approx(total, abs=1e-6)
    assert float(losses["derm"].parts["within"]) == pytest.approx(0.527587, abs=1e-6)
    assert float(losses["clinic"].parts["within"]) == pytest.approx(1.081312, abs=1e-6)


def test_collapse_is_worth_three_times_the_log_of_the_others() -> None:
    task = bare()
    alike = {b: (torch.ones(5, 2, dtype=torch.float64),) * 2 for b in ("derm", "clinic")}
    assert float(task.cross(alike, everyone(5))) == pytest.approx(math.log(9))


def test_parameters_of_the_paper() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(projector(2048, 128)) == 8_658_944
    wide = Setting(units=413, size=224, dim=2048, batch=96, seed=0, modalities=("derm", "clinic"))
    two = nn.ModuleDict({"derm": nn.Identity(), "clinic": nn.Identity()})
    fusions = ("none", "concat", "sep_shared", "sep_sep")
    with torch.device("meta"):
        of = {f: count(PairedContrast(two, settings(fusion=f), wide)) for f in fusions}
        concat = count(projector(4096, 128))
    one = 8_658_944
    assert of == {"none": 2 * one, "concat": 2 * one + concat, "sep_shared": 3 * one, "sep_sep": 4 * one}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    missing = {"clinic": [1, 5, 9, 30], "derm": [2, 44]}
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store", missing=missing)


def trained(monkeypatch, store, **config):
    monkeypatch.setitem(tiny.TASKS, "paired_contrast", {**tiny.TASKS["paired_contrast"], **config})
    return tiny.train("paired_contrast", store, epochs=1)


def test_without_fusion_branches_do_not_meet(store, monkeypatch) -> None:
    """A gradient of one branch's loss reaches the other only through a cross term."""
    for fusion, meets in (("none", False), ("concat", True), ("sep_shared", True), ("sep_sep", True)):
        monkeypatch.setitem(tiny.TASKS, "paired_contrast", {"out": 16, "fusion": fusion})
        run = tiny.Steps("paired_contrast", store)
        run.learner(run.batches())[1]["derm"].value.backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in run.encoders.backbones["clinic"].parameters()]
        assert any(reached) == meets, fusion


def test_every_setting_trains(store, monkeypatch) -> None:
    ends = {}
    for config in (
        {"fusion": "none"}, {"fusion": "concat"}, {"fusion": "concat", "pairing": 2}, {"fusion": "sep_shared"},
        {"fusion": "sep_sep", "pairing": 1}, {"cross": "printed"}, {"cross_weight": 3.0},
    ):  # fmt: skip
        made, history = trained(monkeypatch, store, **config)
        ends[str(config)] = made.state_dict()["backbones.derm.conv1.0.weight"]
        assert ("derm.cross" in history[0]["parts"]) == (config.get("fusion") != "none")
    found = list(ends.values())
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_the_pool_stands_in_for_missing_images(gappy) -> None:
    pools = {m: PairedPool(gappy, m, tiny.ROWS, tiny.CPU, None, ("derm", "clinic")) for m in ("derm", "clinic")}
    assert len(pools["derm"]) == len(pools["clinic"]) == tiny.CASES
    for m, gone in (("clinic", [1, 5, 9, 30]), ("derm", [2, 44])):
        there = pools[m].there(tiny.ROWS)
        assert tiny.ROWS[~there].tolist() == gone
        shown = pools[m].pixels(tiny.ROWS).pixels
        assert not (shown == 0).flatten(1).all(1).any()  # a stand-in is an image too
        assert pools[m].labels("diagnosis", tiny.ROWS).tolist() == (tiny.ROWS % 3).tolist()


def test_a_case_without_a_partner_trains_its_own_branch_alone(gappy, monkeypatch) -> None:
    monkeypatch.setitem(tiny.TASKS, "paired_contrast", {"out": 16})
    run = tiny.Steps("paired_contrast", gappy)
    task = run.learner.tasks["joint"]
    asked = []
    whole = PairedContrast.cross

    def cross(self, features, there):
        asked.append(there)
        return whole(self, features, there)

    monkeypatch.setattr(PairedContrast, "cross", cross)
    batches = run.batches()
    values = {b: loss.parts for b, loss in task(batches).items()}
    derm, clinic = (batches[b].there for b in ("derm", "clinic"))
    assert torch.equal(asked[0], derm & clinic) and not asked[0].all() and derm.sum() != asked[0].sum()
    # Other pixels where nothing is there change no loss: BatchNorm aside, which sees the stand-ins.
    run.learner.eval()
    before = task(batches)
    pool = run.pools["clinic"]
    pool.rows[~pool.there(tiny.ROWS)] = pool.rows[0]
    after = task({b: type(x)(x.units, x.pool, x.size, x.seed, x.epoch, x.step) for b, x in batches.items()})
    assert all(after[b].value.item() == pytest.approx(before[b].value.item(), rel=1e-6) for b in before)
    assert all(v.isfinite() for parts in values.values() for v in parts.values())


def test_impossible_settings_are_refused() -> None:
    three = Setting(100, 32, 8, 10, 0, modalities=("derm", "clinic", "xray"))
    with pytest.raises(UserError, match=r"fusion: pairs two modalities, and data\.modalities names 3"):
        PairedContrast.check(settings(), three)
    with pytest.raises(UserError, match="batch: must be at least 2"):
        PairedContrast.check(settings(), Setting(100, 32, 8, 1, 0, modalities=("derm", "clinic")))
    with pytest.raises(UserError, match="cross: printed goes with fusion sep_shared and sep_sep, not with concat"):
        PairedContrast.check(settings(cross="printed", fusion="concat"), SETTING)
    with pytest.raises(UserError, match="pairing: must be 0 where cross is printed"):
        PairedContrast.check(settings(cross="printed", pairing=2), SETTING)
    PairedContrast.check(settings(), SETTING)
