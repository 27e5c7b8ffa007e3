"""The way of a GPU: its numbers, parameters and pictures are the host's, and the host reads none of them.

It is taken by tensors of the CPU. Pictures are compared with the host's in floating point and agree within 2e-5, of
which a level of 255 has 200: sums are made in another order, and samples not chosen for a change of hue are turned by
nothing, which rounds.
"""

import numpy as np
import pytest
import torch
from data.views.test_augment import ALL, framed, noisy, undo
from torch import Tensor

from dermsearch.data.views.arrays import uniforms
from dermsearch.data.views.augment import PatchGrid, View, alike, draw, largest, patch_axes, patches, plain, render
from dermsearch.data.views.pictures import Pictures
from dermsearch.numbers import uniforms as of_host
from dermsearch.testing.pretended import pretended_gpu
from dermsearch.testing.waits import Copies, Waits

LARGE = View(32, (0.08, 1), (3 / 4, 4 / 3), 0.5, 0.0, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5)
SMALL = View(20, (0.05, 0.3), (3 / 4, 4 / 3), 0.5, vflip=0.5, solarize=0.5)
NEVER = View(24, (1.5, 2.0), (3.0, 3.0), 0.5)
VIEWS = {
    "all": ALL,
    "large": LARGE,
    "small": SMALL,
    "never fits": NEVER,
    "whole": View(40),
    "turned": View(20, rotate=90),
}


@pytest.fixture
def floats(monkeypatch):
    """The host, too, resizes in floating point."""
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: False)


def near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def frames_of_all_sizes(n: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.concatenate([random.integers(0, 30, (n, 2)), random.integers(1, 600, (n, 2))], 1)


def there_of(frames: np.ndarray) -> Tensor:
    return Pictures(torch.zeros(len(frames), 3, 1, 1, dtype=torch.uint8), frames).frames_there


# Numbers


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1, 2**40 + 1, 2**63, 2**64 - 1])
def test_numbers_are_the_hosts_to_the_bit(seed):
    random = np.random.default_rng(seed % 1000)
    for epoch, use, count in ((0, "view/0", View.numbers), (1, "key/1", 1), (99_999, "patches", 21), (2**62, "", 3)):
        units = np.concatenate([[0, 1, 2**63 - 1], random.integers(0, 2**62, 500), random.integers(0, 10**5, 500)])
        host = of_host(seed, epoch, units, use, count)
        there = uniforms(seed, epoch, torch.from_numpy(units), use, count)
        assert there.dtype == torch.float64 and np.array_equal(there.numpy(), host)
        assert np.array_equal(uniforms(seed, epoch, units, use, count), host)
        with pretended_gpu() as device:
            there = uniforms(seed, epoch, torch.from_numpy(units).to(device), use, count)
            assert there.is_cuda and np.array_equal(there.cpu().numpy(), host)


# Parameters


@pytest.mark.parametrize("name", VIEWS)
def test_parameters_are_the_hosts(name):
    """Boxes and choices exactly, others to a last digit."""
    view, frames, u = VIEWS[name], frames_of_all_sizes(3000), of_host(3, 1, np.arange(3000), name, View.numbers)
    host, there = draw(view, frames, u), draw(view, there_of(frames), torch.from_numpy(u))
    for field in ("box", "flip", "vflip", "jitter", "gray", "blur", "solarize"):
        assert np.array_equal(getattr(there, field).numpy(), getattr(host, field)), field
    for field in ("angle", "factors", "sigma"):
        np.testing.assert_allclose(getattr(there, field).numpy(), getattr(host, field), rtol=1e-15, atol=1e-15)


def test_places_of_patches_are_the_hosts():
    frames, u = frames_of_all_sizes(500), of_host(3, 1, np.arange(500), "a", PatchGrid.numbers)
    for grid in (PatchGrid(7), PatchGrid(32)):
        there = patch_axes(grid, there_of(frames), torch.from_numpy(u))
        assert np.array_equal(there.numpy(), patch_axes(grid, frames, u))


@pytest.mark.parametrize("name", VIEWS)
def test_no_crop_has_a_longer_side_than_the_view_says(name):
    u = of_host(0, 0, np.arange(4000), name, View.numbers)
    for place in ([0, 0, 256, 256], [3, 4, 200, 240], [0, 0, 12, 300], [0, 0, 300, 12], [0, 0, 1, 1], [0, 0, 3, 3]):
        frames = np.tile(place, (4000, 1))
        longest, most = draw(VIEWS[name], frames, u).box[:, 2:].max(), largest(VIEWS[name], frames)
        assert longest <= most, place
        if place[3] == 256 and name != "never fits":
            assert most < 1.1 * longest, "and it says no more than is needed"


# Pictures


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("frames", [False, True])
def test_pictures_are_the_hosts(name, frames, floats):
    view, pictures = VIEWS[name], framed()[0] if frames else Pictures(noisy(24, 60, 50))
    u = np.stack([of_host(0, 0, np.arange(len(pictures)), f"a/{i}", View.numbers) for i in range(2)], 1)
    found = alike(view, pictures, torch.from_numpy(u))
    assert found.shape == (len(pictures), 2, 3, view.size, view.size) and found.dtype == torch.float32
    for i in range(2):
        mine, its = undo(found[:, i]), undo(render(view, pictures, u[:, i]))
        sure = (mine - view.threshold).abs().minimum((1 - mine - view.threshold).abs()) > 1e-4  # else a digit decides
        near(torch.where(sure, mine, 0), torch.where(sure, its, 0))
        assert sure.float().mean() > 0.9


def test_patches_and_whole_pictures_are_the_hosts(monkeypatch):
    pictures = framed()[0]
    u = of_host(0, 0, np.arange(len(pictures)), "a", PatchGrid.numbers)
    near(patches(PatchGrid(12), pictures, torch.from_numpy(u)), patches(PatchGrid(12), pictures, u))
    host = plain(pictures, 30)
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: False)
    torch.testing.assert_close(undo(plain(pictures, 30)), undo(host), atol=1.02 / 255, rtol=0)  # of bytes: a level


def test_a_picture_not_chosen_stays_as_it_is():
    """To the bit, but for hue."""
    images = noisy(8, 32, 32)
    u = torch.full((8, 1, View.numbers), 0.5, dtype=torch.float64)
    u[:, :, 22:] = 0.999  # not chosen, and strong if it were
    view = View(32, jitter=(0.8, 0.8, 0.8, 0.0), jitter_p=0.9, gray=0.9, blur=0.9, solarize=0.9)
    assert torch.equal(alike(view, Pictures(images), u), alike(View(32), Pictures(images), u))
    near(undo(alike(view, Pictures(images), u)[:, 0]), images / 255)


def test_a_view_depends_on_its_own_row_alone(monkeypatch):
    images, u = noisy(24), torch.from_numpy(of_host(3, 1, np.arange(24), "a", View.numbers))[:, None]
    whole, order = alike(ALL, Pictures(images), u), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    near(alike(ALL, Pictures(images[order]), u[order]), whole[order])
    near(alike(ALL, Pictures(images[7:8]), u[7:8]), whole[7:8])
    monkeypatch.setattr("dermsearch.data.views.on_device.MEMORY", 3 * 64 * 64 * 5)  # many parts
    near(alike(ALL, Pictures(images), u), whole)
    near(alike(ALL, Pictures(images), torch.cat([u, u.flip(0)], 1))[:, 0], whole[:, 0])
    grid, v = PatchGrid(12), u[:, 0, : PatchGrid.numbers]
    near(patches(grid, Pictures(images), v)[order], patches(grid, Pictures(images[order]), v[order]))


def test_grey_pictures_are_one_plane_until_they_are_normalised():
    grey, u = noisy(6)[:, :1].contiguous(), torch.from_numpy(of_host(3, 1, np.arange(6), "a", View.numbers))[:, None]
    three = grey.expand(6, 3, 64, 64).contiguous()
    for view in (LARGE, SMALL, VIEWS["turned"]):
        near(alike(view, Pictures(grey), u), alike(view, Pictures(three), u))
    near(plain(Pictures(grey), 20), plain(Pictures(three), 20))


def test_none_is_a_batch_too():
    empty, none = Pictures(noisy(1)[:0]), torch.zeros(0, 2, View.numbers, dtype=torch.float64)
    assert alike(ALL, empty, none).shape == (0, 2, 3, 48, 48)
    assert patches(PatchGrid(8), empty, none[:, 0, :21]).shape == (0, 9, 3, 8, 8)


# What the host knows of it


@pytest.mark.parametrize("frames", [False, True])
def test_the_host_reads_nothing_and_sends_frames_alone(frames):
    pictures, n = framed()[0], len(framed()[0])
    with pretended_gpu() as device, Waits() as waits, Copies() as copies:
        there = Pictures(pictures.pixels.to(device, non_blocking=True), pictures.frame if frames else None)
        units = torch.arange(n, device=device)

        def loss() -> list[Tensor]:  # as a step is called, of which `Waits` takes notes
            found = [alike(v, there, uniforms(0, 0, units, k, View.numbers)[:, None]) for k, v in VIEWS.items()]
            return [*found, patches(PatchGrid(12), there, uniforms(0, 0, units, "a", 21)), plain(there, 20)]

        copies.sent.clear()
        copies.bytes = 0
        assert all(made.is_cuda for made in loss())
    assert not waits.found and not copies.waited
    assert copies.sent.total() == 1 and copies.bytes == 32 * (n if frames else 1), "once for all views"
