"""Pools: the images that there are, on the device, as a study looks at them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dermsearch.data.case import Case
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool, Look, PairedPool, pictures
from dermsearch.data.views.augment import plain
from dermsearch.errors import UserError

CPU = torch.device("cpu")
SIZES = {"derm": [(16, 16), (16, 20), (24, 16), (16, 16)], "clinic": [(20, 16), None, (16, 16), (16, 18)]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    """Four cases of several sizes; the second has no clinical image."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(4):
        sizes = {m: s[i] for m, s in SIZES.items()}
        images = {m: rng.integers(0, 256, (*s, 3), np.uint8) for m, s in sizes.items() if s}
        cases.append(Case(f"c{i}", "", "", images, {"diagnosis": i % 2}))
    folder: Path = tmp_path_factory.mktemp("pool") / "s"
    return write_store(folder, cases, {c.case: "train" for c in cases}, {"diagnosis": ("a", "b")}, {})


def test_a_pool_holds_what_there_is(store):
    pool = CasePool(store, ("derm", "clinic"), np.arange(4), CPU, Look(16))
    assert len(pool) == 7 and pool.size == 16
    assert list(zip(pool.rows.tolist(), pool.modality.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1),
    ]  # fmt: skip
    assert len(CasePool(store, ("clinic",), np.arange(4), CPU)) == 3
    assert len(CasePool(store, ("clinic",), np.array([1]), CPU)) == 0


def test_a_mixed_batch_is_each_image_alone(store):
    pool = CasePool(store, ("derm", "clinic"), np.array([3, 0, 2, 1]), CPU, Look(16))
    order = np.array([6, 1, 4, 0, 3, 5, 2, 2])
    together = plain(pool.pixels(order), 16)
    for place, unit in enumerate(order):
        torch.testing.assert_close(together[place], plain(pool.pixels(np.array([unit])), 16)[0], atol=1e-5, rtol=0)
        name = pool.modalities[pool.modality[unit]]
        alone = pictures(store, name, pool.rows[unit : unit + 1], Look(16), CPU)
        torch.testing.assert_close(together[place], plain(alone, 16)[0], atol=1e-5, rtol=0)


def test_a_look_cuts_borders_and_names_statistics(store):
    row = np.array([2])
    whole = pictures(store, "derm", row, Look(8), CPU)
    cut = pictures(store, "derm", row, Look(8, border=0.25), CPU)
    inner = whole.pixels[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(plain(cut, 8), plain(type(whole)(inner), 8), atol=1e-5, rtol=0)
    derm7pt = plain(pictures(store, "derm", row, Look(8, statistics="derm7pt"), CPU), 8)
    back = derm7pt * torch.tensor([0.2139, 0.2472, 0.2571])[:, None, None]
    back = back + torch.tensor([0.7833, 0.6712, 0.6026])[:, None, None]
    imagenet = plain(whole, 8) * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    imagenet = imagenet + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    torch.testing.assert_close(back, imagenet, atol=1e-5, rtol=0)


@pytest.mark.parametrize("border", [0.0, 0.2])
@pytest.mark.parametrize("modalities", [("derm",), ("clinic",), ("derm", "clinic")])
def test_images_that_stay_on_the_device_are_the_same(store, modalities, border, monkeypatch):
    """As on a GPU with room, whose steps copy no image."""
    look, cases = Look(16, border), np.array([3, 0, 2, 1])
    pools = {"case by case": (CasePool, modalities), "in pairs": (PairedPool, modalities[0])}
    for make, seen in pools.values():
        read = make(store, seen, cases, CPU, look)
        assert read.resident is None
        with monkeypatch.context() as patch:
            patch.setattr("dermsearch.data.store.pool.room", lambda device: 10**9)
            patch.setattr("dermsearch.data.store.pool.READ", 2)
            kept = make(store, seen, cases, CPU, look)
            assert kept.resident is not None and len(kept.resident) == len(read)
        units = np.array([*range(len(read)), 0, 0])[::-1]
        with monkeypatch.context() as patch:
            patch.setattr(kept, "_read", None)
            torch.testing.assert_close(plain(kept.pixels(units), 16), plain(read.pixels(units), 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("where", "free", "there"),
    [("auto", 4.0, True), ("auto", 3.99, False), ("device", 1.0, True), ("pinned", 99.0, False)],
)
def test_images_lie_where_the_study_says_and_there_is_room(store, where, free, there, monkeypatch):
    taken = 7 * 3 * max(s[0] for s in SIZES["derm"]) * max(s[1] for s in SIZES["derm"])
    monkeypatch.setattr("dermsearch.data.store.pool.room", lambda device: int(free * taken))
    pool = CasePool(store, ("derm", "clinic"), np.arange(4), CPU, Look(16))
    pool.where = where
    assert (pool.resident is not None) == there
    empty = CasePool(store, ("clinic",), np.array([1]), CPU)
    empty.where = where
    assert empty.resident is None


def test_images_that_must_lie_on_a_device_without_room_are_refused(store, monkeypatch):
    monkeypatch.setattr("dermsearch.data.store.pool.room", lambda device: 100)
    pool = CasePool(store, ("derm", "clinic"), np.arange(4), CPU, Look(16))
    pool.where = "device"
    with pytest.raises(UserError, match=r"^compute.pixels: device: the images take 0.00 GB, and .* free; give auto"):
        pool.pixels(np.array([0]))
