"""A worker that is killed within a stage: its successor goes on, and ends with the same weights to the bit."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from pretext import tiny

from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import find_task
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.training.stage import train_stage

pytestmark = pytest.mark.slow

STEPS = 9  # three epochs of three
context = get_context("forkserver")
context.set_forkserver_preload(["torch", "pretext.tiny"])


def train(name: str, store: str, place: str, die_at: int | None) -> None:
    """Train a stage that keeps its state in a stage store; SIGKILL comes after so many steps."""
    torch.set_num_threads(1)
    task, partial = find_task(name), PartialStage(StageStore(place), "k", every=1e-9)  # a state of every step
    whole, done = task.after_step, []

    def after_step(self, batch) -> None:
        whole(self, batch)
        partial.settle()
        one = next(iter(batch.values())) if task.joint else batch
        done.append(one.step)
        if one.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    task.after_step = after_step  # type: ignore[method-assign]
    started = []

    def report(row) -> None:
        started.append(row["epoch"])

    encoders = tiny.encoders(name)
    recipe = tiny.recipe(name, epochs=3)
    history = train_stage(recipe, encoders, CaseStore(store), tiny.ROWS, partial, report, tiny.CPU).history
    told = {"weights": encoders.state_dict(), "history": tiny.timeless(history), "ran": started, "steps": done}
    torch.save(told, f"{place}/end.pt")


def run(*args) -> int:
    """The exit code of a process that trains; minus the number of the signal that ended it."""
    process = context.Process(target=train, args=args)
    process.start()
    process.join(240)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "store"
    tiny.make_store(folder)
    return str(folder)


# One of each kind of state: a bank, a queue, teachers, patients, a pair. What all keep is tried in `test_contract`.
@pytest.mark.parametrize(
    "name",
    ["odc", "moco_v2", "slimp", *(pytest.param(n, marks=pytest.mark.long) for n in ("ibot", "paired_contrast"))],
)
def test_killed_at_a_random_step_and_resumed(name: str, store: str, tmp_path: Path) -> None:
    step = int(np.random.default_rng().integers(3, STEPS - 1))
    print(f"killed after step {step + 1}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(name, store, str(whole), None) == 0
    assert run(name, store, str(killed), step) == -signal.SIGKILL
    assert not (killed / "end.pt").exists()
    assert run(name, store, str(killed), None) == 0
    one, other = (torch.load(folder / "end.pt", weights_only=True) for folder in (whole, killed))
    assert one["ran"] == [1, 2, 3] and len(one["steps"]) == STEPS
    assert other["steps"] == list(range(step, STEPS)) and other["ran"] == list(range(step // 3 + 1, 4)), "it went on"
    assert one["history"] == other["history"]
    assert one["weights"].keys() == other["weights"].keys()
    for key, weights in one["weights"].items():
        assert torch.equal(weights, other["weights"][key]), key
