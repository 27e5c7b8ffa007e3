"""A notice to stop: a state is saved between two steps, whatever the time, and gone on from to the bit."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import find_task
from dermsearch.testing.small import Kept
from dermsearch.training import under_way
from dermsearch.training.notice import TOLD, Noticed, heard
from dermsearch.training.under_way import HEARS, Epoch, States

STEPS = 6  # two epochs of three


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(autouse=True)
def as_a_run_takes_them() -> Iterator[None]:
    """Both, though a shell's background jobs ignore SIGINT."""
    both = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.default_int_handler) for number in both]
    yield
    for number, handler in zip(both, before, strict=True):
        signal.signal(number, handler)


class Never(Kept):
    """It is never time to save."""

    def left(self, within: bool = False) -> float:
        return math.inf


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def amid(name: str, step: int, act: Callable[[], None]) -> Callable[..., Any]:
    """Train with something that happens amid a step: between its backward pass and its optimiser."""

    def train(store: CaseStore, kept: Kept, **settings: Any) -> tuple[Any, list[Any]]:
        task = find_task(name)
        with pytest.MonkeyPatch.context() as patch:
            whole = task.after_backward

            def after_backward(self: Any, at: int) -> None:
                whole(self, at)
                if at == step:
                    act()

            patch.setattr(task, "after_backward", after_backward)
            return tiny.train(name, store, kept=kept, **settings)

    return train


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 2, 3, STEPS - 1])  # within an epoch, at the end of one, at that of all
def test_it_is_heard_behind_the_step_and_resumed_to_the_bit(step: int, number: int, store: CaseStore) -> None:
    (whole, history), kept = tiny.train("moco_v2", store), Never()
    with pytest.raises(Noticed):
        amid("moco_v2", step, lambda: send(number))(store, kept)
    state, epoch, done = kept.load(), (step + 1) // 3, (step + 1) % 3
    assert state is not None and len(json.loads(state["history"])) == epoch
    assert len(state["within"]["losses"]) == done if done else "within" not in state
    made, rows = tiny.train("moco_v2", store, kept=kept)
    assert tiny.same(made, whole) and tiny.timeless(rows) == tiny.timeless(history)


def test_the_second_one_waits_for_nothing(store: CaseStore) -> None:
    def twice() -> None:
        send()
        send()

    kept = Never()
    with pytest.raises(KeyboardInterrupt) as raised:
        amid("rotation", 1, twice)(store, kept)
    assert raised.type is KeyboardInterrupt and kept.load() is None
    assert not TOLD.given and signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_one_that_comes_behind_the_last_look_is_not_lost(store: CaseStore) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        tiny.train("rotation", store, kept=Never(), epochs=1, report=lambda row: send())
    assert raised.type is KeyboardInterrupt and not TOLD.given


def test_nor_one_in_a_step_that_fails(store: CaseStore) -> None:
    def fail() -> None:
        send()
        raise ValueError("a bug")

    with pytest.raises(KeyboardInterrupt):
        amid("rotation", 1, fail)(store, Never())


def test_a_handler_of_somebody_else_stays() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with heard():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def attempt(folder: str, data: bytes | None, told: int, step: int) -> Any:
    """On each process: what it keeps when the process of number `told` gets notice in a step, or what came of it."""
    torch.set_num_threads(1)
    kept = Never()
    kept.data = data

    def act() -> None:
        TOLD.given = world.rank() == told

    try:
        made, history = amid("moco_v2", step, act)(CaseStore(folder), kept, lr=0.0005)
    except Noticed:
        return kept.data
    finally:
        TOLD.given = False
    return {n: w.clone() for n, w in made.state_dict().items()}, json.loads(tiny.timeless(history))


@pytest.mark.slow
def test_a_group_leaves_together_on_what_the_first_process_hears(store: CaseStore, two: Group) -> None:
    folder = str(store.folder)
    (weights, history), _ = two(attempt, folder, None, 0, -1)
    data, nothing = two(attempt, folder, None, 0, 1)
    assert data is not None and nothing is None
    for found, rows in two(attempt, folder, data, 0, -1):
        assert rows == history and all(torch.equal(w, found[n]) for n, w in weights.items())


@pytest.mark.parametrize("pace", [0.01, 0.5, 7.0])
def test_several_processes_hear_within_seconds(pace: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the next state is."""
    clock, module = [0.0], torch.nn.Linear(1, 1)
    monkeypatch.setattr(under_way.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(world, "size", lambda: 2)
    monkeypatch.setattr(world, "rank", lambda: 0)
    monkeypatch.setattr(world, "from_first", lambda said: said)
    monkeypatch.setattr(Epoch, "state", lambda epoch: {"seconds": 1.0})
    monkeypatch.setattr(TOLD, "given", False)
    for when in np.linspace(100, 140, 9):
        clock[0] = 0.0
        states = States(Never(), module, torch.optim.SGD(module.parameters()))  # type: ignore[arg-type]
        TOLD.given = False
        with pytest.raises(Noticed):
            for _ in range(20_000):
                clock[0] += pace
                TOLD.given = clock[0] >= when
                states.within([], Epoch(0, {}, 0.0))
        assert 0 <= clock[0] - when <= max(HEARS, pace) + pace
