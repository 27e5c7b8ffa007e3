"""The registry, and how a global batch looks from a process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch import registry, world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.data.views.augment import PatchGrid, View
from dermsearch.errors import UserError
from dermsearch.pretext import base
from dermsearch.pretext.base import Batch, find_task
from dermsearch.pretext.batch import all_features

VIEW = View(32, scale=(0.2, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, gray=0.2, blur=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def batch_of(store: CaseStore, units: np.ndarray, **other: int) -> Batch:
    pool = CasePool(store, ("derm",), tiny.ROWS, tiny.CPU)
    return Batch(units, pool, 32, **{"seed": 5, "epoch": 1, "step": 3, **other})


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="moco_v2"):
        find_task("moco_v3")


def test_pictures_depend_on_their_unit_alone(store):
    order = np.random.default_rng(0).permutation(48)
    whole = batch_of(store, np.arange(48))
    again = batch_of(store, order, step=9)
    torch.testing.assert_close(again.view(VIEW, "query"), whole.view(VIEW, "query")[order], atol=1e-5, rtol=0)
    alone = batch_of(store, order[:3]).view(VIEW, "query")
    torch.testing.assert_close(alone, whole.view(VIEW, "query")[order[:3]], atol=1e-5, rtol=0)
    grid = PatchGrid(24)
    torch.testing.assert_close(again.patches(grid, "p"), whole.patches(grid, "p")[order], atol=1e-5, rtol=0)
    for other in (batch_of(store, order, epoch=2), batch_of(store, order, seed=6)):
        assert (other.view(VIEW, "query") - again.view(VIEW, "query")).flatten(1).abs().amax(1).min() > 0.01
    assert (again.view(VIEW, "key") - again.view(VIEW, "query")).flatten(1).abs().amax(1).min() > 0.01


def test_permutations_change_with_the_step(store):
    found = {tuple(batch_of(store, np.arange(16), step=s).permutation("a")) for s in range(20)}
    assert len(found) == 20 and all(sorted(p) == list(range(16)) for p in found)


def rows_of(folder: str) -> tuple[list[int], list[int], torch.Tensor]:
    batch = batch_of(CaseStore(folder), np.arange(40, 24, -1))
    return batch.own.tolist(), batch.permutation("a").tolist(), batch.view(VIEW, "query")


def test_processes_share_a_batch(store, four: Group):
    own, permutation, views = rows_of(str(store.folder))
    every = four(rows_of, str(store.folder))
    assert [u for part, _, _ in every for u in part] == own
    assert all(p == permutation for _, p, _ in every)
    torch.testing.assert_close(torch.cat([v for _, _, v in every]), views, atol=1e-5, rtol=0)


def test_a_pool_mixes_its_modalities_evenly(store):
    rows = np.array([7, 3, 30])
    pool = CasePool(store, ("derm", "clinic"), rows, tiny.CPU)
    assert len(pool) == 6
    for unit in range(6):
        image = store.pictures(("derm", "clinic")[unit % 2], rows[unit // 2 : unit // 2 + 1])[0][0]
        assert np.array_equal(pool.pixels(np.array([unit])).pixels[0].permute(1, 2, 0).numpy(), image)


def test_features_of_all_images_are_those_of_evaluation(store):
    backbone = tiny.encoders().backbones["shared"].train()
    before = {n: b.clone() for n, b in backbone.named_buffers()}
    pool = CasePool(store, ("derm",), tiny.ROWS, tiny.CPU)
    found = tiny.features(backbone, pool)
    assert found.shape == (48, 96) and found.dtype == torch.float32 and not found.requires_grad
    assert backbone.training and all(torch.equal(b, before[n]) for n, b in backbone.named_buffers())
    cast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=False)  # noqa: E731
    torch.testing.assert_close(found, all_features(backbone, pool, 48, 32, cast, batch=7), atol=1e-5, rtol=1e-5)


def test_one_process_is_a_world(tmp_path: Path):
    x = torch.ones(4, requires_grad=True)
    assert (world.size(), world.rank()) == (1, 0) and world.mine(6) == slice(0, 6)
    assert world.reduce_sum(x) is x and not world.gather(x).requires_grad


def test_a_task_of_another_package_joins_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(base.Task):
        name = "mine"

    class Entry:
        name = "mine"

        @staticmethod
        def load() -> type[base.Task]:
            return Mine

    def entry_points(group: str, name: str | None = None) -> list[type[Entry]]:
        assert group == "dermsearch.tasks"
        return [Entry] if name in (None, "mine") else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "mine" in base.task_names() and "moco_v2" in base.task_names()
    assert base.find_task("mine") is Mine
    with pytest.raises(UserError, match="'mien' is not a task; did you mean 'mine'"):
        base.find_task("mien")
