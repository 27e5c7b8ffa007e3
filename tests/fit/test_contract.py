"""What every fit must do. A fit joins by one line in `small.FITS`."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fit import small
from gloo import Group

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.fit.base import FITS, Fit, is_fit, predictor
from dermsearch.fit.finetune import Finetune
from dermsearch.models.artifact import PREDICTOR
from dermsearch.nature import Nature
from dermsearch.pretext.base import Material
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.study.config import Train
from dermsearch.testing import check_fit
from dermsearch.testing.small import Interrupted, Kept, timeless
from dermsearch.training.health import StageFailed

pytestmark = pytest.mark.slow

SYSTEMS = [name for name in small.FITS if small.modalities(name) == small.PAIR]
every_fit = pytest.mark.parametrize("name", small.FITS)
context = get_context("forkserver")
context.set_forkserver_preload(["torch", "fit.small"])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return small.make_store(tmp_path_factory.mktemp("data") / "store")


def test_every_shipped_fit_is_in_the_list():
    assert set(FITS.shipped) <= set(small.FITS) <= set(FITS.names())


@every_fit
def test_it_says_what_it_is(name):
    fit = FITS.find(name)
    assert is_fit(fit) and issubclass(fit, Fit) and not is_fit(fit.Config)
    assert fit.name == name and isinstance(fit.nature, Nature) and fit.nature.learns
    recipe = fit.recipe(fit.Config.model_validate(small.FITS[name]))
    assert recipe.keys() <= Train.model_fields.keys() and {"lr", "epochs", "batch"} <= recipe.keys()


@every_fit
def test_what_every_fit_promises(name):
    check_fit(name, small.FITS[name])


@every_fit
def test_it_learns(name, store):
    trained = small.train(name, store, epochs=20)
    found = small.predict(trained, store)
    # SVMs learn from the few cases aside, and an adversary that is deceived costs what it costs at chance.
    assert small.accuracy(found, "diagnosis", store) > (0.8 if name == "fusion_m4net_svm" else 0.9)
    assert trained.history[-1]["loss"] < {"amfam": 0.6, "dann": 1.0}.get(name, 0.5) * trained.history[0]["loss"]
    assert trained.parts.keys() == {PREDICTOR}


@every_fit
def test_probabilities_are_such(name, store):
    found = small.predict(small.train(name, store, epochs=1), store)
    for label, classes in small.CLASSES.items():
        assert found[label].shape == (len(small.HELDOUT), len(classes)) and found[label].dtype == np.float64
        assert (found[label] >= 0).all() and np.allclose(found[label].sum(1), 1)
    assert (found["diagnosis"][:, 3] == 0).all(), "no training case is of this class"
    assert (found["diagnosis"][:, :3] > 0).all() and (found["streaks"] == 0.5).all(), "no training case has this label"


def killed(name: str, folder: str, place: str, die_at: int | None) -> None:
    """Train in a process of its own; SIGKILL comes after so many steps."""
    torch.set_num_threads(1)
    fit, partial = FITS.find(name), PartialStage(StageStore(place), "k", every=1e-9)  # a state of every step
    whole, steps = fit.after_backward, list[int]()

    def after_backward(self: Fit, step: int) -> None:
        whole(self, step)
        partial.settle()
        steps.append(step)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    fit.after_backward = after_backward  # type: ignore[method-assign]
    ran: list[int] = []
    store = CaseStore(folder)
    trained = small.train(name, store, kept=partial, report=lambda row: ran.append(row["epoch"]))
    torch.save({"state": trained.parts[PREDICTOR].state, "ran": ran, "steps": steps}, f"{place}/end.pt")


FIRST = ("finetune", "fusion_m4net_svm", "dann")  # one of each kind: the trainer is the same


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FIRST else pytest.mark.long) for n in small.FITS])
def test_killed_within_an_epoch_and_resumed(name: str, store: CaseStore, tmp_path: Path):
    def run(place: Path, die_at: int | None) -> int | None:
        process = context.Process(target=killed, args=(name, str(store.folder), str(place), die_at))
        process.start()
        process.join(240)
        return process.exitcode

    assert run(tmp_path, 7) == -signal.SIGKILL and not (tmp_path / "end.pt").exists()
    assert run(tmp_path, None) == 0
    found = torch.load(tmp_path / "end.pt", weights_only=True)
    assert found["ran"] == [3] and found["steps"] == [7, 8]
    assert small.equal(found["state"], small.train(name, store).parts[PREDICTOR].state)


@every_fit
def test_ended_twice_within_an_epoch_it_goes_on_to_the_bit(name: str, store: CaseStore):
    """The last time in the phase in which an adaptation aligns."""
    whole, kept, ran = small.train(name, store), Kept(step=True), list[int]()
    for kept.stops in (4, 4):
        with pytest.raises(Interrupted):
            small.train(name, store, kept=kept)
    found = small.train(name, store, kept=kept, report=lambda row: ran.append(row["epoch"]))
    assert ran == [3] and small.equal(found.parts[PREDICTOR].state, whole.parts[PREDICTOR].state)
    assert timeless(found.history) == timeless(whole.history)


def near(one: dict[str, np.ndarray], many: dict[str, np.ndarray], rounding: float = 0.0) -> None:
    """Probabilities differ by a thousandth of what lies between the cases, at most."""
    for label in ("diagnosis", "veil"):
        spread = np.ptp(one[label][:, 0])
        assert spread > 1e-3 and np.abs(many[label] - one[label]).max() < max(1e-3 * spread, rounding), label


# AdamW makes whole steps of gradients that are nothing but rounding, and a deep system magnifies them: so systems are
# trained slowly here. What is exact are the gradients of a step, in double precision, see
# `test_systems.test_two_processes_have_the_gradients_of_one`.
ROUNDING = 5e-4


def on_each(name: str, folder: str, modalities: tuple[str, ...], rows: np.ndarray) -> dict[str, Any]:
    """The fit as this process of a group trains it, and what the first process of it then says alone."""
    torch.set_num_threads(1)
    store, made = CaseStore(folder), small.encoders(modalities, "separate")
    slowly = {"lr": 1e-5} if name in SYSTEMS else {}  # see ROUNDING
    trained = small.train(name, store, made, rows=rows, **slowly)
    found = small.predict(trained, store) if world.rank() == 0 else {}
    return {"state": trained.parts[PREDICTOR].state, "history": trained.history, "found": found}


# A system looks at two images of a case; SVMs of six cases may say the same of all.
ALONE = [(name, ("derm",)) for name in small.FITS if name not in SYSTEMS]
PAIRS = [(name, small.PAIR) for name in small.FITS if name != "fusion_m4net_svm"]


@pytest.mark.parametrize(("name", "modalities"), ALONE + PAIRS)
def test_two_processes_come_to_what_one_comes_to(name, modalities, tmp_path, two: Group):
    store = small.make_store(tmp_path / "store", missing={"clinic": [1, 5, 9, 30], "derm": [2, 31]})
    arguments = (name, str(store.folder), modalities, small.ROWS)
    one, (first, second) = on_each(*arguments), two(on_each, *arguments)
    for a, b in zip(one["history"], first["history"], strict=True):
        off = 1e-3 if name in SYSTEMS else 1e-4
        assert b["loss"] == pytest.approx(a["loss"], rel=off)
        assert b["parts"] == pytest.approx(a["parts"], rel=off, abs=1e-6)
    near(one["found"], first["found"], ROUNDING * (name in SYSTEMS))
    assert small.equal(first["state"], second["state"])


class BrokenOff(Exception):
    """A process of a group ends in the middle of an epoch; the group itself lives on, for the next test."""


def goes_on(name: str, folder: str, place: str, die_at: int | None) -> dict[str, Any] | None:
    """On each process: train with a state that is kept at every step, broken off after so many of them."""
    torch.set_num_threads(1)
    fit, partial, ran, taken = FITS.find(name), PartialStage(StageStore(place), "k", every=1e-9), [], []
    whole = fit.after_backward

    def after_backward(self: Fit, step: int) -> None:
        whole(self, step)
        partial.settle()
        taken.append(step)
        if step == die_at:
            raise BrokenOff

    fit.after_backward = after_backward  # type: ignore[method-assign]
    try:
        store = CaseStore(folder)
        trained = small.train(name, store, kept=partial, report=lambda row: ran.append(row["epoch"]))
    except BrokenOff:
        return None
    finally:
        fit.after_backward = whole  # type: ignore[method-assign]
    found = small.predict(trained, store) if world.rank() == 0 else {}
    return {"state": trained.parts[PREDICTOR].state, "ran": ran, "steps": taken, "found": found}


@pytest.mark.parametrize("name", ["finetune", "dann"])
def test_two_processes_broken_off_within_an_epoch_come_to_the_same(name, store, tmp_path, two: Group):
    arguments = (goes_on, name, str(store.folder))
    assert two(*arguments, str(tmp_path / "broken"), 4) == [None, None]
    first, second = two(*arguments, str(tmp_path / "broken"), None)
    assert first["ran"] == [2, 3] and first["steps"][0] == 4 and small.equal(first["state"], second["state"])
    in_peace, _ = two(*arguments, str(tmp_path / "in peace"), None)
    assert in_peace["ran"] == [1, 2, 3] and small.equal(first["state"], in_peace["state"])
    alone = goes_on(name, str(store.folder), str(tmp_path / "alone"), None)
    near(alone["found"], first["found"])


@every_fit
def test_a_few_cases_divide_among_processes(name, store, two: Group):
    """Eleven cases make one batch of sixteen, whatever the number of processes."""
    arguments = (name, str(store.folder), small.modalities(name), np.arange(11))
    one, (first, _) = on_each(*arguments), two(on_each, *arguments)
    near(one["found"], first["found"], ROUNDING * (name in SYSTEMS))


@every_fit
def test_an_absurd_rate_fails_the_stage(name, store, monkeypatch):
    fit, recipe = FITS.find(name), FITS.find(name).recipe
    monkeypatch.setattr(fit, "recipe", classmethod(lambda cls, config: {**recipe(config), "lr": 1e30}))
    with pytest.raises(StageFailed, match=rf"^{name}: (loss|gradient) is .*(inf|nan) at step \d of \d+$"):
        small.train(name, store)


@every_fit
def test_cases_without_any_label_teach_nothing(name, store, tmp_path):
    unknown = {i: dict.fromkeys(small.CLASSES, -1) for i in range(30, small.TRAIN)}
    other = small.make_store(tmp_path / "store", unknown)
    few, all_rows = small.train(name, store, rows=np.arange(30)), small.train(name, other)
    assert small.equal(few.parts[PREDICTOR].state, all_rows.parts[PREDICTOR].state)
    with pytest.raises(UserError, match=rf"^{name}: learns from labels, and none of the 10 training cases has one$"):
        small.train(name, other, rows=np.arange(30, small.TRAIN))


SHAPES = [(("derm",), "separate"), (("derm", "clinic"), "shared"), (("derm", "clinic"), "separate")]


@every_fit
@pytest.mark.parametrize(("modalities", "branches"), SHAPES)
def test_modalities_and_branches(name, modalities, branches, store):
    if name in SYSTEMS and modalities != small.PAIR:
        with pytest.raises(UserError, match=f"^{name}: needs two modalities"):
            small.train(name, store, small.encoders(modalities, branches))
        return
    start = small.encoders(modalities, branches)
    trained = small.train(name, store, start, epochs=1)
    made = predictor(trained.parts[PREDICTOR])
    assert made.encoders.branches == start.branches
    assert np.isfinite(small.predict(trained, store)["diagnosis"]).all()
    assert trained.history[0]["embedding_std"] > 0


@every_fit
def test_bf16_is_near(name, store):
    full, half = small.train(name, store, epochs=1), small.train(name, store, epochs=1, precision="bf16")
    assert half.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.05)
    assert half.history[0]["loss"] != full.history[0]["loss"]


@pytest.mark.parametrize("name", [name for name in small.FITS if name not in SYSTEMS])
def test_rows_without_an_image_are_refused(name, tmp_path):
    store = small.make_store(tmp_path / "store", missing={"derm": [50]})
    trained = small.train(name, store, epochs=1)
    with pytest.raises(ValueError, match="without any image cannot be predicted"):
        small.predict(trained, store)


class Tempered(Finetune):
    """Fine-tuning that keeps a fifth of the cases aside, for a temperature."""

    name = "tempered"
    seen: ClassVar[list[np.ndarray]]

    @classmethod
    def pools(cls, given: Material) -> Any:
        cls.seen.append(given.rows)
        return super().pools(given)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("aside_cases", torch.zeros((), dtype=torch.int64))

    @classmethod
    def aside(cls, config: Any) -> float:
        return 0.2

    def calibrate(self, predicted: Any, truth: Any) -> None:
        assert not self.training and (truth["veil"] >= -1).all()
        assert all(len(predicted[label]) == len(truth[label]) for label in small.CLASSES)
        self.temperature.fill_(4.0)
        self.aside_cases.fill_(len(truth["veil"]))

    def predict(self, batches: Any) -> Any:
        said = super().predict(batches)
        return {label: (p.log() / self.temperature).softmax(1) for label, p in said.items()}


def calibrated(folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    store = CaseStore(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.FITS, "tempered", small.FITS["finetune"])
        patch.setattr(FITS, "find", lambda name: {"tempered": Tempered, "finetune": Finetune}[name])
        Tempered.seen = []
        trained = small.train("tempered", store)
        return {"state": trained.parts[PREDICTOR].state, "found": small.predict(trained, store), "rows": Tempered.seen}


def test_cases_kept_aside_calibrate(store, two: Group):
    one, (first, second) = calibrated(str(store.folder)), two(calibrated, str(store.folder))
    learnt, aside, _ = one["rows"]
    assert one["state"]["temperature"] == 4 and one["state"]["aside_cases"] == len(aside) == 8
    assert sorted([*learnt, *aside]) == list(small.ROWS)
    assert not {*store.groups()[learnt]} & {*store.groups()[aside]}
    near(one["found"], first["found"])
    assert small.equal(first["state"], second["state"])
