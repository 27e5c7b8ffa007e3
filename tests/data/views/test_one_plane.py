"""Views of grey pictures that are kept in one channel: those of three equal ones, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dermsearch.data.views import colour
from dermsearch.data.views.augment import PatchGrid, View, alike, patches, plain, render
from dermsearch.data.views.pictures import Pictures
from dermsearch.data.views.resample import blur
from dermsearch.numbers import uniforms

VIEWS = {
    "everything": View(32, (0.08, 1), (0.75, 1.33), 0.5, 0.0, (0.8, 0.8, 0.8, 0.2), 0.8, 0.3, 0.5, (0.1, 2), 0.5, 0.3),
    "turned": View(32, (0.2, 1), (0.75, 1.33), 0.5, 25.0, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5),
    "turned in hue alone": View(33, (0.2, 1), rotate=10.0, jitter=(0, 0, 0, 0.5), jitter_p=1.0),
    "as they are": View(24),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def both(n: int, height: int, width: int, framed: bool, seed: int) -> tuple[Pictures, Pictures]:
    """The same pictures in one channel and in three; white ones among them."""
    rng = np.random.default_rng(seed)
    canvas = rng.integers(0, 256, (n, height, width, 1), np.uint8)
    canvas[: n // 4] = 255
    sides = np.stack([rng.integers(20, height + 1, n), rng.integers(20, width + 1, n)], 1)
    frame = np.concatenate([0 * sides, sides], 1) if framed else None
    one, three = (torch.from_numpy(np.repeat(canvas, c, 3)).permute(0, 3, 1, 2) for c in (1, 3))
    return Pictures(one, frame, MEAN, STD), Pictures(three, frame, MEAN, STD)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["bytes", "floats"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way to resize."""
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: request.param == "bytes")


# Odd widths, of which the last columns are no whole vector of a processor, and one alone.
SHAPES = [(9, 64, 64, False), (7, 45, 51, True), (5, 33, 70, False), (6, 50, 42, True), (1, 40, 61, False)]


@pytest.mark.usefixtures("threads", "way")
@pytest.mark.parametrize("shape", SHAPES)
def test_views_are_the_same(shape: tuple[int, int, int, bool]) -> None:
    for epoch in range(3):
        one, three = both(*shape, epoch)
        for name, view in VIEWS.items():
            u = uniforms(0, epoch, np.arange(len(one)), name, View.numbers)
            seen = render(view, one, u)
            assert seen.shape == (len(one), 3, view.size, view.size)
            assert torch.equal(seen, render(view, three, u)), name
        assert torch.equal(plain(one, 28), plain(three, 28))
        u = uniforms(0, epoch, np.arange(len(one)), "patches", PatchGrid.numbers)
        assert torch.equal(patches(PatchGrid(11), one, u), patches(PatchGrid(11), three, u))


@pytest.mark.parametrize("shape", SHAPES)
def test_views_by_the_way_of_a_gpu_are_the_same(shape: tuple[int, int, int, bool]) -> None:
    """Its lines take tensors of the CPU too."""
    one, three = both(*shape, 0)
    for name, view in VIEWS.items():
        u = torch.from_numpy(uniforms(0, 0, np.arange(2 * len(one)), name, View.numbers).reshape(len(one), 2, -1))
        assert torch.equal(alike(view, one, u), alike(view, three, u)), name
    u = torch.from_numpy(uniforms(0, 0, np.arange(len(one)), "patches", PatchGrid.numbers))
    assert torch.equal(patches(PatchGrid(11), one, u), patches(PatchGrid(11), three, u))


def test_some_of_them_and_without_a_border() -> None:
    one, three = both(6, 40, 44, True, 0)
    for each in (one.take(np.array([5, 0, 5])), three.take(np.array([5, 0, 5]))), (one.cut(0.1), three.cut(0.1)):
        assert each[0].pixels.shape[1] == 1 and torch.equal(plain(each[0], 20), plain(each[1], 20))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "side"), [(1, 24), (5, 96), (1, 224), (2, 224)])
@pytest.mark.usefixtures("threads")
def test_changes_of_one_plane_are_those_of_three(count: int, side: int, seed: int) -> None:
    """Alone too, where two threads would share a sum over all pixels that there are, and not three such sums."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.rand(1, count, side * side, generator=generator)
    strengths = {"brightness": (0.2, 1.8), "contrast": (0.2, 1.8), "saturation": (0, 2), "hue": (-0.5, 0.5)}
    for name, (low, high) in strengths.items():
        factor = low + (high - low) * torch.rand(count, generator=generator)
        one, three = plane.clone(), plane.repeat(3, 1, 1)
        for x in (one, three):
            getattr(colour, name)(x, factor)
        assert torch.equal(one.expand_as(three), three), name
    for x in (one, three):
        colour.gray(x)
        colour.solarize(x, 0.5)
    assert torch.equal(one.expand_as(three), three)
    sigma = 0.1 + torch.rand(count, generator=generator)
    one, three = (blur(x.reshape(len(x), count, side, side).transpose(0, 1), sigma, 5) for x in (one, three))
    assert torch.equal(one.expand_as(three), three)
