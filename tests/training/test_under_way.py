"""States within an epoch: due by the first process's clock, gone on from to the bit, refused where they do not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import Pretext, Task, find_task
from dermsearch.testing.small import Interrupted, Kept, SmallStage
from dermsearch.training import under_way
from dermsearch.training.stage import Trained, train_stage
from dermsearch.training.under_way import Epoch, States, Unfit


@pytest.fixture(scope="module")
def store(tmp_path_factory: Any) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def after_every_step(train: Callable[[Kept], Any]) -> tuple[Any, int]:
    """What comes of a training that is ended after every state, and how many attempts it takes."""
    kept, attempts = Kept(step=True), 1
    while True:
        kept.stops = 1
        try:
            return train(kept), attempts
        except Interrupted:
            attempts += 1


def watched(store: CaseStore, name: str, kept: Kept, compiled: bool = False, until: int = 0, **train: Any) -> Trained:
    """With a look at validation images after every epoch."""
    rows, held = np.arange(32), np.arange(32, 48)
    given = tiny.recipe(name, **train), tiny.encoders(), store, rows, kept, lambda row: None, tiny.CPU
    return train_stage(*given, heldout=held, compiled=compiled, until=until)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("simclr", {"accumulate": 2, "patience": 2, "batch": 8}),
        ("moco_v2", {"accumulate": 2}),
        pytest.param("rotation", {"compiled": True}, marks=pytest.mark.long),
    ],
)
def test_resumed_within_an_epoch_it_is_equal_to_the_bit(name: str, more: dict[str, Any], store: CaseStore) -> None:
    whole = watched(store, name, Kept(), **more)
    found, attempts = after_every_step(lambda kept: watched(store, name, kept, **more))
    assert attempts == 2 * 32 // more.get("batch", 16)
    assert tiny.timeless(found.history) == tiny.timeless(whole.history)
    assert all(torch.equal(w, found.parts["encoders"].state[n]) for n, w in whole.parts["encoders"].state.items())


@pytest.mark.slow
def test_modes_of_an_epoch_are_those_of_its_midst(store: CaseStore) -> None:
    """A teacher that learns, then its head, then the student: an epoch each."""
    stage = SmallStage("ssd_kd", {"teaching": 0.34, "rotating": 0.33})
    whole, history = stage.train(store, epochs=3, batch=24)
    (made, rows), attempts = after_every_step(lambda kept: stage.train(store, kept=kept, epochs=3, batch=24))
    assert attempts == 6 and tiny.same(made, whole) and tiny.timeless(rows) == tiny.timeless(history)


def test_an_epoch_is_planned_and_begun_once(store: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    plan = Task.plan_epoch

    def planned(task: Task, epoch: int, *given: Any) -> np.ndarray:
        calls.append(("plan", epoch))
        return plan(task, epoch, *given)

    monkeypatch.setattr(Task, "plan_epoch", planned)
    for name in ("enter", "begin"):
        monkeypatch.setattr(Pretext, f"{name}_epoch", lambda task, epoch, *_, name=name: calls.append((name, epoch)))
    after_every_step(lambda kept: tiny.train("rotation", store, kept=kept, batch=24))
    first = [("enter", 0), ("begin", 0), ("plan", 0), ("enter", 0)]
    assert calls == first + [(name, 1) for name, _ in first], "what is planned may hang on what was learnt before"


def test_seconds_are_those_of_all_attempts(store: CaseStore) -> None:
    kept = Kept(step=True, stops=1)
    with pytest.raises(Interrupted):
        tiny.train("rotation", store, kept=kept, epochs=1)
    state = kept.load()
    assert state is not None and state["within"]["seconds"] > 0
    kept.save(state | {"within": state["within"] | {"seconds": 1000.0}})
    ((row,),) = tiny.train("rotation", store, kept=kept, epochs=1)[1:]
    assert 1000 < row["seconds"] < 2000 and row["images_per_second"] == pytest.approx(48 / row["seconds"])


def test_a_state_between_epochs_is_as_it_always_was(store: CaseStore) -> None:
    """So that of an earlier version of this file is one."""
    kept = Kept(stops=1)
    with pytest.raises(Interrupted):
        tiny.train("rotation", store, kept=kept)
    state = kept.load()
    assert state is not None and state.keys() == {"learner", "optimizer", "history"}
    assert [row["epoch"] for row in json.loads(state["history"])] == [1]


class Never(Kept):
    """It is never time to save."""

    def left(self, within: bool = False) -> float:
        return math.inf


def test_a_segment_keeps_its_end_whatever_the_time(store: CaseStore) -> None:
    whole, one = watched(store, "rotation", Kept(), epochs=3), Never()
    watched(store, "rotation", one, epochs=3, until=2)
    state = one.load()
    assert state is not None and len(json.loads(state["history"])) == 2
    assert tiny.timeless(watched(store, "rotation", one, epochs=3).history) == tiny.timeless(whole.history)
    two = Never()
    watched(store, "rotation", two, epochs=2)
    assert two.load() is None, "nobody goes on from the end of a stage"


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another pool": lambda w: w | {"orders": {"other": w["orders"]["shared"]}},
    "another length": lambda w: w | {"orders": {"shared": w["orders"]["shared"][:-1]}},
    "units that are not there": lambda w: w | {"orders": {"shared": w["orders"]["shared"] + 48}},
    "over": lambda w: w | {"losses": torch.ones(3), "norms": torch.ones(3)},
    "not begun": lambda w: w | {"losses": torch.ones(0), "norms": torch.ones(0)},
    "fewer norms": lambda w: w | {"norms": torch.ones(0)},
    "no parts": lambda w: {n: v for n, v in w.items() if n != "parts"},
    "no dictionary": lambda w: [1],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_within_another_epoch_does_not_fit(wrong: str, store: CaseStore) -> None:
    kept = Kept(step=True, stops=1)
    with pytest.raises(Interrupted):
        tiny.train("rotation", store, kept=kept)
    state = kept.load()
    assert state is not None
    kept.save(state | {"within": WRONG[wrong](state["within"])})
    with pytest.raises(Unfit):
        tiny.train("rotation", store, kept=kept)


class BrokenOff(Exception):
    """A process of a group ends in the middle of an epoch; the group itself lives on, for the next test."""


def attempt(name: str, folder: str, data: bytes | None, die_at: int, train: dict[str, Any]) -> Any:
    """On each process, with a state of every step: what is kept, and what came of it. Broken off in step `die_at`."""
    torch.set_num_threads(1)
    task, kept, steps = find_task(name), Kept(step=True), []
    kept.data, whole = data, task.after_backward

    def after_backward(self: Any, step: int) -> None:
        whole(self, step)
        steps.append(step)
        if step == die_at:
            raise BrokenOff

    task.after_backward = after_backward  # type: ignore[method-assign]
    try:
        made, history = tiny.train(name, CaseStore(folder), kept=kept, **train)
    except BrokenOff:
        return kept.data
    finally:
        task.after_backward = whole  # type: ignore[method-assign]
    return steps, {n: w.clone() for n, w in made.state_dict().items()}, json.loads(tiny.timeless(history))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "train"), [("moco_v2", {"accumulate": 2}), ("pseudo_labels", {})])
def test_a_group_broken_off_within_an_epoch_goes_on(
    name: str, train: dict[str, Any], store: CaseStore, two: Group
) -> None:
    folder, slowly = str(store.folder), {"lr": 0.0005, **train}
    (_, weights, history), _ = two(attempt, name, folder, None, -1, slowly)
    data, nothing = two(attempt, name, folder, None, 5, slowly)
    assert nothing is None, "the first process keeps it"
    for steps, found, rows in two(attempt, name, folder, data, -1, slowly):
        assert steps == [5] and rows == history
        assert all(torch.equal(w, found[n]) for n, w in weights.items())
    _, _, rows = attempt(name, folder, data, -1, slowly)  # and a process alone, to rounding
    for one, other in zip(rows, history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["parts"] == pytest.approx(other["parts"], rel=1e-3, abs=0.05)


class Clocked:
    """A `Partial` that a clock is told of."""

    def __init__(self, clock: list[float], every: float) -> None:
        self.clock, self.every, self.saved = clock, every, [0.0]

    def load(self) -> None:
        return None

    def left(self, within: bool = False) -> float:
        return max(0.0, self.saved[-1] + self.every - self.clock[0])

    def save(self, state: dict[str, Any]) -> None:
        self.saved.append(self.clock[0])


@pytest.mark.parametrize("first", [0.1, 0.001, 1.0])  # a GPU's queue takes its first steps at once
def test_processes_ask_for_the_clock_seldom_and_save_in_time(first: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked, module = [0.0], [], torch.nn.Linear(1, 1)
    monkeypatch.setattr(under_way.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(world, "size", lambda: 2)
    monkeypatch.setattr(world, "rank", lambda: 0)
    monkeypatch.setattr(world, "from_first", lambda said: asked.append(said) or said)
    monkeypatch.setattr(Epoch, "state", lambda epoch: {"seconds": 1.0})
    partial = Clocked(clock, every=20)
    states = States(partial, module, torch.optim.SGD(module.parameters()))  # type: ignore[arg-type]
    for step in range(2000):
        clock[0] += first if step < 10 else 0.1
        states.within([], Epoch(0, {}, 0.0))
    between = np.diff(partial.saved)
    assert len(between) >= 9 and between.min() >= 20 and between.max() < 22
    assert len(asked) < 2000 / 10, "a twentieth of the steps, or so"


def test_a_process_alone_looks_at_its_clock_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, module = [0.0], torch.nn.Linear(1, 1)
    monkeypatch.setattr(Epoch, "state", lambda epoch: {"seconds": 1.0})
    partial = Clocked(clock, every=20)
    states = States(partial, module, torch.optim.SGD(module.parameters()))  # type: ignore[arg-type]
    for seconds in (1, 1, 1, 1, 1, 1, 1, 1, 11, 1, 1, 19, 1):
        clock[0] += seconds
        states.within([], Epoch(0, {}, 0.0))
    assert partial.saved == [0, 20, 40]
