"""Several views and masks of a batch: one fetch, numbers of their own, each unit's alone."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from gloo import Group

from dermsearch.data.views.arrays import Array, uniforms
from dermsearch.data.views.augment import PatchGrid, View
from dermsearch.data.views.blockmask import BlockMask
from dermsearch.data.views.pictures import Pictures
from dermsearch.pretext.base import Batch
from dermsearch.pretext.batch import sent
from dermsearch.testing.pretended import pretended_gpu
from dermsearch.testing.waits import Copies

LARGE = View(32, scale=(0.4, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, blur=0.5)
SMALL = View(16, scale=(0.1, 0.4), flip=0.5)


class FakePool:
    """Noise, and a count of how often it was asked for."""

    def __init__(self) -> None:
        self.images = torch.randint(0, 256, (50, 3, 40, 48), dtype=torch.uint8)
        self.asked, self.device = 0, torch.device("cpu")

    def pixels(self, units: np.ndarray) -> Pictures:
        self.asked += 1
        return Pictures(self.images[units])

    def table(self, names: Sequence[str], units: np.ndarray) -> SimpleNamespace:
        known = units[:, None] % (np.arange(len(names)) + 2) > 0
        values = np.where(known, units[:, None] + [len(name) / 8 for name in names], 0).astype(np.float32)
        return SimpleNamespace(columns=names, values=values, known=known)


def batch_of(units: np.ndarray, pool: FakePool, **other: int) -> Batch:
    return Batch(units, pool, 32, **{"seed": 5, "epoch": 1, "step": 3, **other})


def test_crops_come_from_one_fetch_and_differ():
    pool = FakePool()
    batch = batch_of(np.array([3, 9, 3, 41]), pool)
    crops = batch.views([LARGE] * 2 + [SMALL] * 3, "crops")
    assert [tuple(c.shape) for c in crops] == [(4, 3, 32, 32)] * 2 + [(4, 3, 16, 16)] * 3
    batch.view(LARGE, "query"), batch.view(LARGE, "key", np.array([41, 9])), batch.masks(BlockMask(4, 4), "masks")
    assert pool.asked == 1
    batch.view(LARGE, "key", np.array([41, 8]))
    assert pool.asked == 2
    for one, other in ((0, 1), (2, 3), (3, 4)):
        assert (crops[one] - crops[other]).flatten(1).abs().amax(1).min() > 0.01
    assert torch.equal(crops[0][0], crops[0][2])  # the same unit twice


def test_a_view_is_the_first_of_several():
    batch = batch_of(np.arange(6), FakePool())
    assert torch.equal(batch.view(LARGE, "a"), batch.views([LARGE, SMALL], "a")[0])


def test_views_and_masks_are_their_units():
    pool, blocks = FakePool(), BlockMask(7, 7)
    whole, part = batch_of(np.arange(40), pool), batch_of(np.array([30, 2, 11]), pool, step=8)
    for mine, its in zip(part.views([LARGE, SMALL], "a"), whole.views([LARGE, SMALL], "a"), strict=True):
        torch.testing.assert_close(mine, its[[30, 2, 11]], atol=1e-5, rtol=0)
    assert np.array_equal(part.masks(blocks, "m"), whole.masks(blocks, "m")[[30, 2, 11]])
    named = whole.view(SMALL, "a", np.array([7, 48, 0]))  # one of them is another process's
    torch.testing.assert_close(named[[0, 2]], whole.view(SMALL, "a")[[7, 0]], atol=1e-5, rtol=0)
    later = batch_of(np.arange(40), pool, epoch=2)
    assert not np.array_equal(later.masks(blocks, "m"), whole.masks(blocks, "m"))


def test_metadata_are_of_this_processs_units(two: Group):
    values, known = table_of()
    assert values.dtype == torch.float32 and known.dtype == torch.bool
    assert values.tolist() == [[0.0, 4.5], [9.375, 0.0], [41.375, 41.5], [0.0, 10.5]]
    assert known.tolist() == [[False, True], [True, False], [True, True], [False, True]]
    parts = two(table_of)
    for whole, both in zip((values, known), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(both), whole)


def table_of() -> tuple[torch.Tensor, torch.Tensor]:
    pool = FakePool()
    found = batch_of(np.array([4, 9, 41, 10]), pool).table(["age", "site"])
    assert pool.asked == 0, "no picture is fetched for it"
    return found


# On a GPU


UNITS = np.array([4, 9, 41, 10])


def made_of(batch: Batch) -> list[torch.Tensor]:
    """Views and patches, as a step takes them."""
    large, other, small = batch.views([LARGE, LARGE, SMALL], "a")
    return [large, other, small, batch.view(LARGE, "b"), batch.patches(PatchGrid(8), "c")]


def made_there() -> dict[str, Any]:
    """The same on a device: the units that numbers are drawn of, where, what is made, sent and waited for."""
    told: dict[str, Any] = {"units": [], "there": []}

    def noted(seed: int, epoch: int, units: Array, use: str, count: int) -> Array:
        found = uniforms(seed, epoch, units, use, count)
        told["units"].append(units.cpu().tolist())
        told["there"].append(found.is_cuda)
        return found

    torch.manual_seed(0)
    pool = FakePool()
    with pretended_gpu() as device, patch("dermsearch.pretext.batch.uniforms", noted):
        pool.device, resident = device, Pictures(pool.images.to(device))
        pool.pixels = resident.take  # type: ignore[method-assign]
        batch = batch_of(UNITS, pool)
        assert batch.pictures.pixels.is_cuda
        with Copies() as copies:
            made = made_of(batch)
        told |= {"made": [x.cpu() for x in made], "sent": copies.bytes, "waited": dict(copies.waited)}
    return told


def test_views_on_a_gpu_are_drawn_there(monkeypatch):
    there = made_there()
    assert all(there["there"]) and there["units"] == [UNITS.tolist()] * 5
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: False)  # floats, as there
    torch.manual_seed(0)
    for mine, its in zip(there["made"], made_of(batch_of(UNITS, FakePool())), strict=True):
        torch.testing.assert_close(mine, its, atol=2e-5, rtol=0)


def test_a_process_draws_its_own_rows_and_sends_their_names_alone(two: Group):
    whole, parts = made_there(), two(made_there)
    for told, own in ((whole, UNITS), *zip(parts, np.split(UNITS, 2), strict=True)):
        assert told["units"] == [own.tolist()] * 5
        assert told["sent"] == len(own) * (3 * 8 + 32), "units at each of three calls, and frames once"
    for mine, *its in zip(whole["made"], *(told["made"] for told in parts), strict=True):
        torch.testing.assert_close(torch.cat(its), mine, atol=2e-5, rtol=0)


@pytest.mark.parametrize("refuses", [False, True], ids=["pinned", "no memory to pin"])
def test_large_arrays_are_sent_from_pinned_memory(refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of plain memory CUDA copies no more than 64 KB without waiting for what is queued."""
    heard: list[tuple[str, int]] = []

    def pin(of: torch.Tensor) -> torch.Tensor:
        if refuses:
            raise RuntimeError("CUDA error: out of memory")
        heard.append(("pin", of.nbytes))
        return of.clone()

    def to(of: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        heard.append((device.type, of.nbytes))
        assert non_blocking
        return of

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    for device in ("cpu", "cuda"):
        for size in (65_536, 65_544):
            values = np.arange(size // 8)
            assert np.array_equal(sent(values, torch.device(device)), values)
    pinned = [] if refuses else [("pin", 65_544)]
    assert heard == [("cpu", 65_536), ("cpu", 65_544), ("cuda", 65_536), *pinned, ("cuda", 65_544)]
