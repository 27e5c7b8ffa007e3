"""Micro-batches: the gradient of a step is their mean, whatever the number of processes; queues take all of them."""

from typing import Any

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.views.augment import View
from dermsearch.pretext.base import Batch, Loss, Settings, Task
from dermsearch.training import stage


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


class Still(Task):
    """A mean over images without BatchNorm's statistics of the batch, so micro-batches add up exactly."""

    name = "still"
    Config = Settings

    def __init__(self, backbone: Any, config: Any, setting: Any) -> None:
        super().__init__(backbone, config, setting)
        self.told, self.calls = setting.batch, []  # type: ignore[var-annotated]

    def before_step(self, step: int) -> None:
        self.backbone.eval()
        self.calls.append(("before", step))

    def loss(self, batch: Batch) -> Loss:
        features = self.backbone(batch.view(View(32), "view"))
        self.calls.append(("loss", batch.step, len(batch.units)))
        return Loss(features.square().mean(), features, {})

    def after_backward(self, step: int) -> None:
        self.calls.append(("backward", step))

    def after_micro(self, batch: Batch) -> None:
        self.calls.append(("micro", batch.step))

    def after_step(self, batch: Batch) -> None:
        self.calls.append(("after", batch.step))


def still(folder: str, accumulate: int, patch: pytest.MonkeyPatch) -> tuple[Still, list[Any], dict[str, Any]]:
    made: list[Still] = []

    class Kept(Still):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    patch.setattr(stage, "find_task", lambda name: Kept)
    train = {"epochs": 1, "batch": 16, "lr": 0.01, "accumulate": accumulate}
    encoders = tiny.encoders()
    recipe = stage.Recipe("still", {}, train, 7, "fp32")
    history = stage.train_stage(
        recipe, encoders, CaseStore(folder), tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    ).history
    return made[0], history, encoders.state_dict()


def test_micro_batches_add_up(store, monkeypatch):
    _, plain, whole = still(str(store.folder), 1, monkeypatch)
    task, history, parts = still(str(store.folder), 4, monkeypatch)
    assert history[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    assert history[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-4)
    for n, v in whole.items():
        torch.testing.assert_close(parts[n], v, rtol=1e-4, atol=1e-6)
    assert task.told == 4, "a task is told of what its loss will see"
    one = [("before", 0), *[("loss", 0, 4), ("micro", 0)] * 3, ("loss", 0, 4), ("backward", 0), ("after", 0)]
    assert task.calls[: len(one)] == one and sum(c[0] == "before" for c in task.calls) == 3


def test_each_micro_batch_has_a_dropout_of_its_own(store, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(stage, "number_dropout", lambda module, number: seen.append(number))
    tiny.train("odc", store, accumulate=2, epochs=2)
    assert seen == list(range(12))


def queue_after(folder: str, accumulate: int) -> tuple[Any, ...]:
    """MoCo's queue after one epoch of 48 images, and what came of the encoders."""
    torch.set_num_threads(1)
    made: list[Any] = []

    class Watched(stage.Learner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "Learner", Watched)
        patch.setitem(tiny.TASKS, "moco_v2", {"queue": 64, "out": 16, "shuffle": 2})
        start = stage.Recipe
        recipe = tiny.recipe("moco_v2", accumulate=accumulate, epochs=1, lr=0.002)
        assert isinstance(recipe, start)
        encoders = tiny.encoders()
        history = stage.train_stage(
            recipe, encoders, CaseStore(folder), tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
        ).history
    task = made[0].each()[0]
    return (
        task.queue.clone(),
        int(task.at),
        history[0]["loss"],
        {n: v.clone() for n, v in encoders.state_dict().items()},
    )


def test_a_queue_takes_every_micro_batch(store):
    queue, at, _, _ = queue_after(str(store.folder), 2)
    start = torch.randn(64, 16, generator=torch.Generator().manual_seed(7))
    fresh = torch.nn.functional.normalize(start, dim=1)
    changed = (queue != fresh).any(1)
    assert at == 48 and changed[:48].all() and not changed[48:].any()


@pytest.mark.slow
def test_two_processes_and_one(store, two: Group):
    one = queue_after(str(store.folder), 2)
    start = tiny.encoders().state_dict()
    moved = np.sqrt(sum(float((one[3][n].double() - v).square().sum()) for n, v in start.items()))
    for many in two(queue_after, str(store.folder), 2):
        assert many[2] == pytest.approx(one[2], rel=1e-4)
        far = np.sqrt(sum(float((one[3][n].double() - v).square().sum()) for n, v in many[3].items()))
        assert far < 0.01 * moved
        torch.testing.assert_close(many[0], one[0], rtol=1e-3, atol=1e-3)


def test_a_batch_that_does_not_divide_is_refused(store):
    with pytest.raises(stage.StageFailed, match="a batch of 16 does not divide among 1 worker x 3 micro-batches"):
        tiny.train("simclr", store, accumulate=3)
