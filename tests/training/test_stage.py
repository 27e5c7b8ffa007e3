"""The trainer: the order of images, what it records, and where it stops."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pretext import tiny
from torch._dynamo.utils import counters

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.data.views.augment import View
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.models.encoders import Encoders
from dermsearch.pretext import base
from dermsearch.pretext.base import Batch, Loss, Settings, Task
from dermsearch.pretext.batch import epoch_order
from dermsearch.training import stage
from dermsearch.training.health import check_finite, collapse
from dermsearch.training.stage import StageFailed, train_stage


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


class Watching(Task):
    """A task that learns next to nothing and remembers what it was asked."""

    name = "watching"
    Config = Settings
    train_defaults = tiny.find_task("moco_v2").train_defaults
    calls: list[tuple[Any, ...]]

    def begin(self, features) -> None:
        Watching.calls = [("begin", tuple(features(self.backbone).shape))]

    def before_step(self, step: int) -> None:
        self.calls.append(("before",))

    def loss(self, batch: Batch) -> Loss:
        features = self.backbone(batch.view(View(32), "view"))
        self.calls.append(("loss", batch.epoch, batch.step, tuple(batch.units)))
        return Loss(features.square().mean(), features, {"one": torch.ones(())})

    def after_step(self, batch: Batch) -> None:
        self.calls.append(("after", batch.step))


@pytest.fixture
def watching(monkeypatch) -> type[Watching]:
    monkeypatch.setitem(base.TASKS.shipped, "watching", "unused")
    monkeypatch.setattr(stage, "find_task", lambda name: Watching)
    return Watching


def watch(store: CaseStore, rows: np.ndarray = tiny.ROWS, kept: Any = None, report: Any = None, **train: Any):
    """Train the watching task; its calls and the history."""
    given = {**Watching.train_defaults, "epochs": 2, "batch": 16, "clip": None, "lr": 0.01, **train}
    recipe = stage.Recipe("watching", {}, given, 7, "fp32")
    made = tiny.encoders()
    history = train_stage(
        recipe, made, store, rows, kept or tiny.Kept(), report or (lambda row: None), tiny.CPU
    ).history
    assert not made.training
    return Watching.calls, history


def units_of(calls: list[tuple[Any, ...]]) -> list[tuple[int, ...]]:
    return [c[3] for c in calls if c[0] == "loss"]


def test_order_of_calls(watching, store):
    calls, history = watch(store)
    assert calls[0] == ("begin", (48, 96))
    assert [c[0] for c in calls[1:]] == ["before", "loss", "after"] * 6
    assert [c[1:3] for c in calls if c[0] == "loss"] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[0]["parts"] == {"one": 1.0} and history[0]["grad_norm"] > 0
    assert history[0]["lr"] == pytest.approx(
        stage.optim.rate(2, 6, {**stage.optim.FALLBACK, **watching.train_defaults, "lr": 0.01})
    )


def test_every_image_once_an_epoch(watching, store):
    calls, _ = watch(store, np.arange(41))
    batches = units_of(calls)
    assert [len(b) for b in batches] == [16] * 6  # ceil(41 / 16) steps; the last is filled from the front
    for epoch in (batches[:3], batches[3:]):
        flat = [u for b in epoch for u in b]
        assert sorted(flat[:41]) == list(range(41)) and flat[41:] == flat[:7]
        assert all(len(set(b)) == 16 for b in epoch)
    assert batches[:3] != batches[3:]


def test_images_a_second_are_images_of_all_branches(watching, store):
    _, (row, _) = watch(store, np.arange(41))
    assert row["images_per_second"] * row["seconds"] == pytest.approx(48), "three steps of 16"


def test_a_batch_larger_than_the_pool(watching, store):
    calls, history = watch(store, np.arange(10), batch=64)
    assert [sorted(b) for b in units_of(calls)] == [list(range(10))] * 2 and len(history) == 2


def test_only_the_given_rows_are_seen(watching, store, monkeypatch):
    seen: list[np.ndarray] = []
    whole = CasePool.pixels

    def pixels(self, units):
        seen.append(self.rows[np.asarray(units)])
        return whole(self, units)

    monkeypatch.setattr(CasePool, "pixels", pixels)
    rows = np.array([3, 5, 8, 13, 21, 34, 40, 41])
    watch(store, rows, batch=4)
    assert set(np.concatenate(seen)) == set(rows)


def test_an_attempt_goes_on_where_the_last_one_was_written(watching, store):
    kept = tiny.Kept()

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(store, kept=kept, report=stop)
    calls = watching.calls = []
    history = watch(store, kept=kept)[1]
    assert [c[1] for c in calls if c[0] == "loss"] == [1, 1, 1]  # no `begin`, no first epoch
    assert [row["epoch"] for row in history] == [1, 2]


def test_a_task_composes_its_batches(watching, store, monkeypatch):
    """Of pairs of neighbours, say: the same in every attempt, and each batch as it was planned."""
    planned: list[list[int]] = []

    def plan_epoch(task: Watching, epoch: int, pool: Any, count: int) -> np.ndarray:
        pairs = np.random.default_rng(epoch).permutation(len(pool) // 2)[:, None] * 2 + np.arange(2)
        assert pool.groups(np.arange(4)).tolist() == [0, 0, 0, 0]
        planned.append(np.resize(pairs, count).tolist())
        return np.array(planned[-1])

    monkeypatch.setattr(Watching, "plan_epoch", plan_epoch)
    calls, _ = watch(store, np.arange(40))
    assert [len(plan) for plan in planned] == [48, 48]
    assert [u for batch in units_of(calls) for u in batch] == [u for plan in planned for u in plan]
    for plan in (lambda *a: np.arange(47) % 40, lambda *a: np.full(48, 40), lambda *a: np.full(48, -1)):
        monkeypatch.setattr(Watching, "plan_epoch", plan)
        with pytest.raises(ValueError, match="plan_epoch: must name 48 units of the 40 of pool 'shared'"):
            watch(store, np.arange(40))


def test_epoch_order():
    one = epoch_order(1, 0, 50, 64, False)
    assert sorted(one[:50]) == list(range(50)) and np.array_equal(one[50:], one[:14])
    assert np.array_equal(one, epoch_order(1, 0, 50, 64, False))
    for other in (epoch_order(2, 0, 50, 64, False), epoch_order(1, 1, 50, 64, False)):
        assert not np.array_equal(one, other)
    drawn = epoch_order(1, 0, 50, 10_000, True)
    assert set(drawn) == set(range(50)) and len(set(drawn[:50])) < 45
    assert np.bincount(drawn).std() == pytest.approx(np.sqrt(200), rel=0.4)


@pytest.mark.parametrize("name", tiny.TASKS)
def test_an_absurd_rate_stops_the_stage(name, store):
    with pytest.raises(StageFailed, match=rf"^{name}: (loss|gradient) is .*(inf|nan) at step \d of 9$"):
        tiny.train(name, store, lr=1e30, schedule="constant", epochs=3)


def test_weights_that_overflow_at_the_last_step_stop_the_stage(store):
    """Loss and gradient are those from before the step, and fine."""
    kept = tiny.Kept()
    recipe = tiny.recipe("moco_v2", lr=1e38, schedule="constant", weight_decay=100.0, epochs=1, batch=16)
    with pytest.raises(StageFailed, match="moco_v2: the weights are not finite after epoch 1"):
        train_stage(recipe, tiny.encoders(), store, np.arange(16), kept, lambda row: None, tiny.CPU)
    assert kept.data is None


def test_the_first_bad_step_is_named():
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    check_finite("odc", [good, good], [good, good], 10, 30)
    with pytest.raises(StageFailed, match="odc: loss is nan at step 12 of 30"):
        check_finite("odc", [good, bad, bad], [good, bad, bad], 10, 30)
    with pytest.raises(StageFailed, match="odc: gradient is nan at step 13 of 30"):
        check_finite("odc", [good] * 3, [good, good, bad], 10, 30)


def test_on_a_cpu_a_stage_stops_at_the_bad_step_and_not_at_the_end_of_the_epoch(watching, store, monkeypatch):
    """Weights that are not finite would be trained on for the rest of the epoch."""
    whole = Watching.loss

    def loss(task: Watching, batch: Batch) -> Loss:
        found = whole(task, batch)
        return Loss(found.value * (math.nan if batch.step == 1 else 1.0), found.embedding, {})

    monkeypatch.setattr(Watching, "loss", loss)
    with pytest.raises(StageFailed, match="watching: loss is nan at step 2 of 6"):
        watch(store)
    assert [c[0] for c in Watching.calls] == ["begin", "before", "loss", "after", "before", "loss"]


@pytest.mark.parametrize("supervised", [False, True])
def test_how_many_cases_a_class_has_is_told_to_who_reads_labels(supervised, watching, store, monkeypatch):
    told: list[Any] = []
    monkeypatch.setattr(Watching, "supervised", supervised)
    monkeypatch.setattr(Watching, "begin_epoch", lambda task, *given: told.append(task.setting))
    watch(store, np.arange(40), epochs=1)
    assert told[0].counts == ({"diagnosis": (14, 13, 13)} if supervised else {})
    assert told[0].classes == {"diagnosis": 3}


def test_clipping(watching, store):
    """A step is no longer than rate times clip; the history tells the norm from before the cut."""
    start, made = tiny.encoders(), tiny.encoders()
    given = {**watching.train_defaults, "epochs": 1, "batch": 16, "lr": 0.1, "schedule": "constant"}
    given |= {"momentum": 0.0, "weight_decay": 0.0, "clip": 1e-3}
    recipe = stage.Recipe("watching", {}, given, 7, "fp32")
    history = train_stage(recipe, made, store, np.arange(16), tiny.Kept(), lambda row: None, tiny.CPU).history
    assert history[0]["grad_norm"] > 1e-2
    moved = [a - b for a, b in zip(start.parameters(), made.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(1e-4, rel=0.02)


def test_collapse():
    torch.manual_seed(0)
    std, rank = collapse(torch.randn(500, 32))
    assert std == pytest.approx(1, abs=0.05) and rank > 28
    std, rank = collapse(torch.randn(1, 32).expand(500, 32))
    assert std == pytest.approx(0, abs=1e-4) and rank == pytest.approx(1, abs=1e-3)
    std, rank = collapse(torch.randn(500, 2) @ torch.randn(2, 32))  # a plane
    assert std > 0.7 and rank < 2.1
    assert collapse(torch.zeros(5, 4))[0] == 0


def test_bf16_is_near_fp32(store):
    recipe = tiny.recipe("relative_location", epochs=1)
    losses = []
    for precision in ("fp32", "bf16"):
        made = tiny.encoders()
        one = stage.Recipe(recipe.task, recipe.config, recipe.train, recipe.seed, precision)
        losses.append(
            train_stage(one, made, store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU).history[0]["loss"]
        )
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in made.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_who_watches_changes_nothing(store):
    """Not even by leaving the backbone in eval mode, or by looking at all images."""
    plain, history = tiny.train("moco_v2", store, epochs=3)
    looks: list[int] = []

    def watch(epoch, backbones):
        looks.append(epoch)
        for backbone in backbones.values():
            backbone.eval()(torch.zeros(2, 3, 32, 32))
        return {"knn": 0.5} if epoch == 2 else {}

    made, recipe = tiny.encoders(), tiny.recipe("moco_v2", epochs=3)
    watched = train_stage(recipe, made, store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU, watch=watch).history
    assert looks == [1, 2, 3] and [row.pop("knn", None) for row in watched] == [None, 0.5, None]
    assert tiny.timeless(watched) == tiny.timeless(history) and tiny.same(made, plain)


@pytest.mark.slow
def test_memory_does_not_grow(watching, store):
    """Over thirty epochs: what Python holds more after an epoch, but for three (caches fill once), and the peak."""
    import gc
    import tracemalloc

    held: list[int] = []

    def report(row):
        watching.calls.clear()
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        history = watch(store, np.arange(16), report=report, epochs=30)[1]
    finally:
        tracemalloc.stop()
    grown = np.sort(np.diff(held[4:]))[:-3]
    assert grown.sum() < len(grown) * 4096, "a row of the history is less than that"
    assert 0 < history[-1]["peak_memory"] < history[9]["peak_memory"] + 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, graphs",
    [
        ("moco_v2", 2),  # queries with gradients, keys without
        ("ibot", 3),  # the teacher's crops; the student's large ones, some of it hidden; and its small ones
        ("colorme", 1),
    ],
)
def test_compiled_is_the_same_to_rounding(name, graphs, store, monkeypatch):
    """By whatever door a task comes in, graphs are captured once (not made into C++ here: minutes), and names stay."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        made, recipe = tiny.encoders(name), tiny.recipe(name, epochs=2, lr=0.002)
        history = train_stage(
            recipe, made, store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU, compiled=compiled
        ).history
        found.append((made, history[-1]["loss"], counters["stats"]["unique_graphs"]))
        assert (made.backbones["shared"]._compiled_call_impl is not None) == compiled
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3)
    assert found[0][0].state_dict().keys() == found[1][0].state_dict().keys()
    assert [found[0][2], found[1][2]] == [0, graphs], "captured again and again, or not at all"


def test_a_task_is_given_what_its_parent_handed_on_and_hands_on_its_own(watching, store, monkeypatch):
    def hands_on(task: Watching) -> dict[str, Part]:
        return {"notes": Part({"heard": sorted(task.setting.artifact)}, {})}

    monkeypatch.setattr(Watching, "hands_on", hands_on)
    start, made = tiny.encoders(), tiny.encoders()
    recipe = stage.Recipe("watching", {}, {"epochs": 1, "batch": 16, "lr": 0.01}, 7, "fp32")
    artifact = {ENCODERS: start.part(), "tables": Part({}, {})}
    given = store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU
    parts = train_stage(recipe, made, *given, artifact=artifact).parts
    assert parts["notes"].config == {"heard": ["encoders", "tables"]} and parts.keys() == {ENCODERS, "notes"}
    again = Encoders.empty(**parts[ENCODERS].config).load(parts[ENCODERS].state)
    assert tiny.same(again, made) and not tiny.same(again, start)
    kept = {name: w.clone() for name, w in again.state_dict().items()}
    with torch.no_grad():
        for w in (*made.parameters(), *made.buffers()):
            w.zero_()
    assert all(torch.equal(w, kept[name]) for name, w in again.state_dict().items()), "what is handed on is a copy"
