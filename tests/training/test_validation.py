"""The validation loss touches nothing, means the same every time, and ends a stage that no longer gains."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.models.batchnorm import across_processes
from dermsearch.pretext.base import find_task
from dermsearch.training import stage
from dermsearch.training.precision import autocast
from dermsearch.training.validation import HeldOut, over, untouched, validated

SEEN, UNSEEN = np.arange(29), np.arange(29, 46)  # 17 validation images: no whole number of batches
PLAIN = autocast(tiny.CPU, "fp32")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def unseen(run: tiny.Steps, store: CaseStore) -> dict[str, CasePool]:
    return {b: CasePool(store, seen, UNSEEN, tiny.CPU) for b, seen in run.encoders.branches.items()}


def inner(run: tiny.Steps) -> dict[str, torch.Tensor]:
    """All tensors that a learner has, buffers outside the state dict included."""
    return {n: v.clone() for n, v in [*run.learner.named_parameters(), *run.learner.named_buffers()]}


def loss_of(run: tiny.Steps, store: CaseStore, batch: int = 8, at: tuple[int, int] = (0, 0)) -> float:
    return validated(run.learner, unseen(run, store), batch, 7, at, PLAIN)[0]


@pytest.mark.parametrize("name", [n for n in tiny.TASKS if not find_task(n).indexed])
def test_it_touches_nothing(name, store):
    """Weights, statistics, queues, modes, what a task carries; and the next step is what it would have been."""
    run, other = tiny.Steps(name, store), tiny.Steps(name, store)
    run.step(), other.step()
    before, modes = inner(run), [m.training for m in run.learner.modules()]
    carried = [set(vars(t)) for t in run.learner.each()]
    first, again = loss_of(run, store, 16), loss_of(run, store, 16)
    assert first == again and np.isfinite(first) and first > 0
    assert all(torch.equal(v, before[n]) for n, v in inner(run).items())
    assert [m.training for m in run.learner.modules()] == modes
    assert [set(vars(t)) for t in run.learner.each()] == carried
    assert run.step() == other.step()
    assert tiny.same(run.learner, other.learner)


def test_its_parts_are_those_of_training(store):
    """The accuracy of a task with a classifier: of the images that it is asked, by hand."""
    run = tiny.Steps("joint_supervised", store)
    loss, parts = validated(run.learner, unseen(run, store), len(UNSEEN), 7, (0, 0), PLAIN)
    (pool,) = unseen(run, store).values()
    batch = HeldOut(np.arange(len(UNSEEN)), pool, pool.size, zlib.crc32(b"7/shared/val"), 0, 0)
    with torch.no_grad(), untouched(run.learner):
        (own,) = run.learner({"shared": batch})[1].values()
    assert parts.keys() == own.parts.keys() and parts["accuracy"] == pytest.approx(float(own.parts["accuracy"]))
    assert 0 < parts["accuracy"] < 1 and loss == pytest.approx(float(own.value), rel=1e-5)


@pytest.mark.parametrize("name", [n for n in tiny.TASKS if not find_task(n).indexed])
def test_neither_epoch_nor_step_changes_a_view(name, store):
    run = tiny.Steps(name, store)  # its schedules have come to their ends by then
    assert loss_of(run, store, 16, at=(9, 40)) == loss_of(run, store, 16, at=(10, 44))


def test_it_is_the_loss_of_these_images(store):
    """Other images have another one; a network that learnt has a lower one."""
    run = tiny.Steps("relative_location", store, lr=0.05)
    start = loss_of(run, store)
    other = {b: CasePool(store, ("derm",), np.arange(13), tiny.CPU) for b in run.encoders.branches}
    assert validated(run.learner, other, 8, 7, (0, 0), PLAIN)[0] != start


def many(folder: str) -> float:
    torch.set_num_threads(1)
    store = CaseStore(folder)
    run = tiny.Steps("simclr", store)
    across_processes(run.learner)
    assert world.size() in (1, 2)
    return loss_of(run, store)


def test_two_processes_and_one(store, two: Group):
    one = many(str(store.folder))
    assert two(many, str(store.folder)) == [pytest.approx(one, rel=1e-5)] * 2


def test_over():
    def ends(*losses: float, patience: int) -> bool:
        return over([{"val_loss": loss} for loss in losses], patience)

    assert not ends(3, 2, 2.5, patience=2) and ends(3, 2, 2.5, 2, patience=2), "equal is no improvement"
    assert not ends(3, 2, 2.5, 1.9, patience=2) and ends(1, 1, patience=1) and not ends(1, patience=1)
    assert not over([{"loss": 1.0}] * 9, 0)


def early(store: CaseStore, losses: list[float], kept: Any = None, report: Any = None, **train: Any):
    """A stage whose validation loss is as the test says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "validated", lambda learner, pools, batch, seed, at, cast: (losses[at[0]], {}))
        recipe = tiny.recipe("moco_v2", epochs=6, **train)
        made = tiny.encoders()
        history = stage.train_stage(
            recipe, made, store, SEEN, kept or tiny.Kept(), report or (lambda row: None), tiny.CPU, UNSEEN
        ).history
    return made, history


LOSSES = [3.0, 2.0, 2.5, 2.1, 1.0, 0.5]


@pytest.fixture(autouse=True)
def short_queue(monkeypatch):
    monkeypatch.setitem(tiny.TASKS, "moco_v2", {"queue": 16, "out": 16})


def test_a_stage_ends_when_nothing_is_gained(store):
    assert len(early(store, LOSSES, patience=2)[1]) == 4
    history = early(store, LOSSES, patience=3)[1]
    assert [row["val_loss"] for row in history] == LOSSES, "the fifth epoch came in time"
    assert "val_loss" not in early(store, LOSSES)[1][0]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [1, 2, 3, 4])
def test_an_interrupted_stage_ends_where_it_would_have(killed, store):
    whole, history = early(store, LOSSES, patience=2)
    kept = tiny.Kept()

    def stop(row):
        if row["epoch"] == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        early(store, LOSSES, kept, stop, patience=2)
    made, again = early(store, LOSSES, kept, patience=2)
    assert tiny.timeless(again) == tiny.timeless(history) and tiny.same(made, whole)


def test_patience_that_never_ends_a_stage_changes_nothing(store):
    """With the true validation loss, between all epochs."""
    found = []
    for patience in (0, 50):
        recipe, made = tiny.recipe("moco_v2", epochs=3, patience=patience), tiny.encoders()
        history = stage.train_stage(recipe, made, store, SEEN, tiny.Kept(), lambda row: None, tiny.CPU, UNSEEN).history
        found.append((made, [row["loss"] for row in history]))
    assert found[0][1] == found[1][1] and tiny.same(found[0][0], found[1][0])


def test_a_loss_on_validation_images_that_is_no_number_fails_the_stage(store):
    with pytest.raises(stage.StageFailed, match="moco_v2: loss on validation images is nan after epoch 2"):
        early(store, [3.0, float("nan"), 2.0, 1.0], patience=2)


def test_patience_without_validation_images_is_refused(store):
    for rows in (None, np.arange(0)):
        recipe = tiny.recipe("moco_v2", patience=2)
        with pytest.raises(stage.StageFailed, match="moco_v2: patience needs validation images"):
            stage.train_stage(recipe, tiny.encoders(), store, SEEN, tiny.Kept(), lambda row: None, tiny.CPU, rows)
