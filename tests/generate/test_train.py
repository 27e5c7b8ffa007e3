"""Training a generator: killed or not, alone or two, it comes to the same; the best drawer is kept."""

from __future__ import annotations

import json
import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generate.made import CPU, brightness, make_store, making
from gloo import Group, two  # noqa: F401  a fixture

from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.generate.base import MODELS, Drawing, conditions, gaussian, model_of
from dermsearch.generate.train import drawn, evenly, train_generator
from dermsearch.models.artifact import GENERATOR
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.testing.small import Kept
from dermsearch.upkeep.upkeep import verify

MODEL = sorted(MODELS.shipped)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    return make_store(tmp_path_factory.mktemp("made") / "real")


class Killed(Exception):
    """What ends a training here."""


def train(cases: CaseStore, kept: Any = None, die_after: int = 0, **more: Any) -> tuple[list[dict], Any]:
    def report(row: dict) -> None:
        if row["epoch"] == die_after:
            raise Killed

    rows = cases.split("train")
    history, part = train_generator(making(**more), cases, rows, brightness, kept or Kept(), report, CPU)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history], part


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", MODEL)
def test_what_was_killed_goes_on_to_the_same_bits(store: CaseStore, model: str) -> None:
    whole = train(store, model=model)
    kept = Kept()
    with pytest.raises(Killed):
        train(store, kept, die_after=2, model=model)
    history, part = train(store, kept, model=model)
    assert history == whole[0] and [row["epoch"] for row in history] == [1, 2, 3]
    assert same(part.state, whole[1].state)


@pytest.mark.parametrize("model", MODEL)
def test_a_seed_counts_and_nothing_else_does(store: CaseStore, model: str) -> None:
    one = train(store, epochs=1, model=model)[1]
    torch.manual_seed(5)
    np.random.seed(5)
    assert same(one.state, train(store, epochs=1, model=model)[1].state)
    assert not same(one.state, train(store, epochs=1, model=model, seed=1)[1].state)


def test_the_best_drawer_is_kept_and_not_the_last(store: CaseStore) -> None:
    rows, far = store.split("train"), iter([3.0, 1.0, 2.0])
    given = store, rows, lambda images: next(far), Kept(), lambda row: None, CPU
    history, part = train_generator(making(3), *given)
    assert [row["kid"] for row in history] == [3.0, 1.0, 2.0]
    far = iter([2.0, 1.0])
    assert same(part.state, train_generator(making(2), *given)[1].state)


@pytest.mark.parametrize("model", MODEL)
def test_an_artifact_draws_the_same_in_any_number(store: CaseStore, model: str) -> None:
    part = train(store, epochs=1, model=model)[1]
    assert json.loads(json.dumps(part.config)) == part.config
    module = model_of(part)
    told = conditions(np.array([[0, 0, 0, 0], [1, 1, 0, 0], [2, 0, 1, 0]]), store.classes)
    three, one = drawn(module, told, 0, "made", CPU), drawn(module, told[:1], 0, "made", CPU)
    assert three.shape == (3, 32, 32, 3) and three.dtype == np.uint8
    assert np.abs(three[0].astype(int) - one[0]).max() <= 1
    assert (three == three[..., :1]).all()  # grey, as what it learnt from
    assert not np.array_equal(three, drawn(module, told, 1, "made", CPU))
    with torch.no_grad():
        numbers = np.full((2, module.noise()), 0.3)
        pair = module.draw(numbers, torch.from_numpy(told[:2]))
    assert pair.abs().max() <= 1 + 1e-6 and not torch.allclose(pair[0], pair[1])  # the condition alone differs


def test_colours_are_drawn_where_there_are_any(tmp_path) -> None:
    cases = list(synthetic(16, 32, 0))
    skin = write_store(tmp_path / "s", cases, {c.case: "train" for c in cases}, {"diagnosis": tuple("abcde")}, {})
    part = train(skin, modality="derm", label="diagnosis", epochs=1, looked=8)[1]
    assert part.config["drawing"]["channels"] == 3
    x = drawn(model_of(part), conditions(np.array([[0]]), skin.classes), 0, "made", CPU)
    assert not (x == x[..., :1]).all()


def test_classes_are_seen_equally_often() -> None:
    chances = evenly(np.array([0, 0, 0, 1, -1, 2, 2]))
    assert chances.tolist() == [1 / 3] * 3 + [1, 0, 1 / 2, 1 / 2]


def test_conditions_and_noise() -> None:
    found = conditions(np.array([[1, -1], [0, 2]]), {"a": ("x", "y"), "b": ("p", "q", "r")})
    assert found.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 1]]
    normal = gaussian(np.array([0.0, 0.5, 0.975, 1.0]), CPU)
    assert normal[1] == 0 and normal[2].item() == pytest.approx(1.959964, abs=1e-5) and normal.isfinite().all()


def test_it_is_as_small_as_a_processor_bears() -> None:
    drawing = Drawing("xray", 64, 1, {"finding": ("none", "pneumothorax", "pneumonia", "cardiomegaly")})
    gan = MODELS.find("gan")
    with torch.device("meta"):
        made = gan(gan.Config(), drawing)
    sides = [sum(p.numel() for p in side.parameters()) for side in (made.generator, made.discriminator)]
    assert sides == [137_009, 140_209]


@pytest.mark.parametrize("side", [48, 8])
def test_sides_that_cannot_be_drawn(side: int) -> None:
    kind = MODELS.find("gan")
    with pytest.raises(UserError, match=r"^--side: must be 16, 32, 64"):
        kind.check(kind.Config(), side)


def on_each(folder: str) -> tuple[list[dict], dict]:
    torch.use_deterministic_algorithms(True)
    history, part = train(CaseStore(folder), epochs=1, batch=8)
    return history, part.state


@pytest.mark.slow
def test_two_workers_come_to_what_one_does(store: CaseStore, two: Group) -> None:  # noqa: F811
    (history, part), ((one, state), (other, again)) = train(store, epochs=1), two(on_each, str(store.folder))
    assert one == other and same(state, again)
    for name, value in history[0]["parts"].items():
        assert one[0]["parts"][name] == pytest.approx(value, abs=1e-4)
    for name, w in part.state.items():
        assert torch.allclose(w.double(), state[name].double(), atol=2e-3), name


def train_and_die(folder: str, place: str, die_after: int) -> None:
    """In a process of its own, killed after an epoch whose state is kept in a stage store."""

    def report(row: dict) -> None:
        if row["epoch"] == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    cases, partial = CaseStore(folder), PartialStage(StageStore(place), "k")
    given = cases, cases.split("train"), brightness, partial, report, CPU
    StageStore(place).commit("k", {GENERATOR: train_generator(making(), *given)[1]}, [], {"kind": GENERATOR})


@pytest.mark.slow
def test_a_killed_process_goes_on(store: CaseStore, tmp_path: Path) -> None:
    context = get_context("spawn")
    for die_after, code in ((2, -signal.SIGKILL), (0, 0)):
        process = context.Process(target=train_and_die, args=(str(store.folder), str(tmp_path), die_after))
        process.start()
        process.join(240)
        assert process.exitcode == code
        assert (tmp_path / "partial" / "k" / "state.pt").exists() == (code != 0)
    stages = StageStore(str(tmp_path))
    assert same(stages.artifact("k")[GENERATOR].state, train(store)[1].state)
    assert not verify(stages) and stages.manifest("k") is not None


def test_the_narrowest_model_has_a_map_in_each_layer() -> None:
    kind = MODELS.find("gan")
    drawing = Drawing("xray", 64, 1, {"finding": ("none", "some")})
    model = kind(kind.Config(width=0.01, noise=2, embedding=1), drawing)
    numbers = np.random.default_rng(0).random
    real, told = torch.zeros(4, 1, 64, 64), torch.eye(2).repeat(2, 1)
    said = model.step(real, told, lambda use, count: numbers((4, count)), model.optimizers())
    assert all(np.isfinite(float(value)) for value in said.values())
