"""What every pretext task must do. A task joins by one line in `tiny.TASKS`."""

import numpy as np
import pytest
import torch
from pretext import tiny
from safetensors.torch import load_file, save_file

from dermsearch.data.store.case_store import CaseStore
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import TASKS, find_task, task_names
from dermsearch.testing import check_task
from dermsearch.testing.small import Interrupted

pytestmark = pytest.mark.slow

every_task = pytest.mark.parametrize("name", tiny.TASKS)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def test_every_shipped_task_is_in_the_list():
    assert set(TASKS.shipped) <= set(tiny.TASKS) <= set(task_names())


@every_task
def test_what_every_task_promises(name):
    check_task(name, tiny.TASKS[name], tiny.stage(name).backbone)


@every_task
def test_loss_falls(name, store):
    """On one batch that comes again and again, without the noise of dropout."""
    config = tiny.TASKS[name]
    plain = {"dropout": 0.0} if "dropout" in find_task(name).Config.model_fields else {}
    try:
        tiny.TASKS[name] = {**config, **plain}
        run = tiny.Steps(name, store)
    finally:
        tiny.TASKS[name] = config
    before = float(run.backward())
    for _ in range(30):
        run.optimizer.step()
        after = float(run.backward())
    assert after < 0.95 * before


@every_task
def test_resuming_after_every_step_changes_nothing(name, store):
    """Under the optimiser that remembers most; its own is in `check_task`."""
    whole, history = tiny.train(name, store, optimizer="adamw")
    kept, attempts = tiny.Kept(step=True), 0
    while True:
        kept.stops, attempts = 1, attempts + 1
        try:
            made, rows = tiny.train(name, store, kept=kept, optimizer="adamw")
            break
        except Interrupted:
            continue
    assert attempts == 6, "a step whose state was written is not taken again"
    assert tiny.same(whole, made)
    assert tiny.timeless(rows) == tiny.timeless(history)


SHAPES = [(("derm",), "separate"), (("derm", "clinic"), "shared"), (("derm", "clinic"), "separate")]


@pytest.mark.parametrize(
    "name, modalities, branches",
    [(n, *shape) for n in tiny.TASKS for shape in SHAPES if shape == SHAPES[2] or not find_task(n).joint],
)
def test_modalities_and_branches(name, modalities, branches, store):
    start = tiny.encoders(name, modalities, branches)
    made, history = tiny.train(name, store, tiny.encoders(name, modalities, branches), epochs=1)
    assert len(made.branches) == (len(modalities) if branches == "separate" else 1)
    for branch in made.branches:
        assert not tiny.same(made.backbones[branch], start.backbones[branch])
    assert all(np.isfinite(v) for v in history[0]["parts"].values())
    assert np.isfinite(history[0]["loss"]) and history[0]["embedding_std"] > 0


@pytest.mark.parametrize("name", [n for n in tiny.TASKS if not find_task(n).joint])
def test_separate_branches_do_not_meet(name, store):
    """A branch trained beside another is the branch trained alone."""
    both, _ = tiny.train(name, store, tiny.encoders(name, ("derm", "clinic"), "separate"), epochs=1)
    start = tiny.encoders(name, ("derm", "clinic"), "separate")
    alone = tiny.encoders(name, ("derm",), "separate")
    alone.backbones["derm"].load_state_dict(start.backbones["derm"].state_dict())
    alone, _ = tiny.train(name, store, alone, epochs=1)
    assert tiny.same(both.backbones["derm"], alone.backbones["derm"])


@every_task
def test_what_is_handed_on_gives_the_same_features(name, store, tmp_path):
    made, _ = tiny.train(name, store, tiny.encoders(name, ("derm", "clinic"), "separate"), epochs=1)
    save_file({k: v.contiguous() for k, v in made.state_dict().items()}, tmp_path / "e.safetensors")
    loaded = Encoders.empty(made.name, ("derm", "clinic"), "separate").load(load_file(tmp_path / "e.safetensors"))
    assert set(loaded.state_dict()) == set(tiny.encoders(name, ("derm", "clinic"), "separate").state_dict())
    loaded.to(memory_format=torch.channels_last).eval()
    x = torch.randn(8, 3, tiny.SIZE, tiny.SIZE).contiguous(memory_format=torch.channels_last)
    for modality in ("derm", "clinic"):
        assert torch.equal(loaded(x, modality), made(x, modality))
    tiny.train("relative_location", store, loaded, epochs=1)  # and they go on from there
    assert not tiny.same(made, loaded)
