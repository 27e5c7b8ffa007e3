"""Views against torchvision's: pixels with the same parameters, and distributions."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms import functional as tf

from dermsearch.data.augment import (
    _TRIES,
    MEAN,
    STD,
    PatchGrid,
    View,
    _crop,
    _sample,
    normalise,
    patches,
    plain,
    render,
)
from dermsearch.data.counter import uniforms

f = v2.functional
FIRST = 2 * _TRIES + 2  # where the numbers begin that follow the crop's
FIELDS = ("flip", "angle", "jitter", "brightness", "contrast", "saturation", "hue", "gray", "blur", "sigma")
AT = {"x": FIRST - 2, "y": FIRST - 1, **{name: FIRST + i for i, name in enumerate(FIELDS)}}


def numbers(n: int = 1, **given: float) -> np.ndarray:
    """The uniforms of a view; 0.5, which is the middle, where nothing is given. `x`, `y`: the crop's place."""
    u = np.full((n, View.numbers), 0.5)
    for name, value in given.items():
        u[:, AT[name]] = value
    return u


def undo(x: Tensor) -> Tensor:
    """Normalised -> [0, 1]."""
    return x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def pictures(n: int = 4, size: int = 64, low: int = 0, high: int = 255) -> Tensor:
    """Smooth colours with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 7, 7, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    x = (x + 0.1 * torch.rand(x.shape, generator=generator)).clamp(0, 1)
    return (low + x * (high - low)).round().to(torch.uint8)


def inner(x: Tensor, border: int = 2) -> Tensor:
    return x[..., border:-border, border:-border]


def test_a_view_that_does_nothing():
    images = pictures()
    assert torch.allclose(undo(render(View(64), images, numbers(4))), images / 255, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "width, height, left, top", [(32, 32, 16, 8), (48, 32, 5, 32), (24, 40, 40, 0), (64, 64, 0, 0)]
)
def test_crop_flip_and_resize(width, height, left, top, flip):
    """The same pixels but for the crop's edge: there ours sees beyond it, where torchvision repeats the last pixel."""
    images = pictures()
    area = width * height / 64**2
    view = View(64, scale=(area, area), ratio=(width / height,) * 2, flip=0.5)
    place = {k: v / max(64 - s, 1) for k, v, s in (("x", left, width), ("y", top, height))}
    ours = undo(render(view, images, numbers(4, flip=0.1 if flip else 0.9, **place)))
    theirs = f.resized_crop(images / 255, top, left, height, width, [64, 64], antialias=False)
    theirs = f.horizontal_flip(theirs) if flip else theirs
    torch.testing.assert_close(inner(ours), inner(theirs), atol=1e-5, rtol=0)
    assert (ours - theirs).abs().max() < 0.2
    if width == height == 64:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share, degrees", [(1.0, 20.0), (0.0, -20.0), (0.75, 10.0)])
def test_rotation(share, degrees):
    images = pictures()
    ours = undo(render(View(64, rotate=20.0), images, numbers(4, angle=share)))
    theirs = f.rotate(images / 255, degrees, v2.InterpolationMode.BILINEAR)
    torch.testing.assert_close(inner(ours, 16), inner(theirs, 16), atol=1e-4, rtol=0)


def jittered(images: Tensor, jitter: tuple[float, float, float, float], **given: float) -> Tensor:
    view = View(64, jitter=jitter, jitter_p=1.0, gray=0.5 if "gray" in given else 0.0)
    return undo(render(view, images, numbers(len(images), **given)))


@pytest.mark.parametrize("u", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation"])
def test_each_colour_change(what, u):
    images = pictures(low=80, high=150)  # far enough from black and white that nothing is cut
    strength = [0.4 if w == what else 0.0 for w in ("brightness", "contrast", "saturation", "hue")]
    ours = jittered(images, tuple(strength), **{what: u})
    theirs = getattr(f, f"adjust_{what}")(images / 255, 1 + (2 * u - 1) * 0.4)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)  # its luma weights have one digit more


def test_colour_changes_together():
    images = pictures(low=90, high=140)
    ours = jittered(images, (0.4, 0.4, 0.4, 0.0), brightness=0.7, contrast=0.1, saturation=0.9)
    theirs = f.adjust_brightness(images / 255, 1.16)
    theirs = f.adjust_saturation(f.adjust_contrast(theirs, 0.68), 1.32)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shift", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_the_same_way(shift):
    """A turn of the chroma plane is not HSV's shift, but goes the same way and about as far, and keeps the luma.

    Measured here: cosine of the change of chroma 0.92 to 0.94, length 1.15 to 1.16, 5 (at 0.05) and 9 (at 0.1)
    levels of 255 apart in the mean.
    """
    images = pictures(low=75, high=175)
    start = images / 255
    ours = jittered(images, (0.0, 0.0, 0.0, 0.1), hue=(shift / 0.1 + 1) / 2)
    theirs = f.adjust_hue(start, shift)
    a, b = ours - start, theirs - start
    a, b = (d - (d * LUMA).sum(1, keepdim=True) for d in (a, b))  # in the chroma plane
    cosine = (a * b).sum() / (a.norm() * b.norm())
    assert cosine > 0.9 and 0.7 < a.norm() / b.norm() < 1.3
    assert (ours - theirs).abs().mean() * 255 < 10
    torch.testing.assert_close((ours * LUMA).sum(1), (start * LUMA).sum(1), atol=1e-3, rtol=0)


LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def test_a_full_turn_of_hue_is_none():
    images = pictures(low=60, high=190)
    torch.testing.assert_close(jittered(images, (0, 0, 0, 1.0), hue=1.0), images / 255, atol=1e-4, rtol=0)


def test_grayscale():
    images = pictures()
    ours = jittered(images, (0.4, 0.0, 0.0, 0.1), gray=0.1, hue=0.9)
    assert torch.allclose(ours, ours[:, :1].expand_as(ours), atol=1e-5)
    ours = jittered(images, (0.0, 0.0, 0.0, 0.0), gray=0.1)
    torch.testing.assert_close(ours, f.rgb_to_grayscale(images / 255, 3), atol=1e-3, rtol=0)
    assert torch.allclose(jittered(images, (0.0, 0.0, 0.0, 0.0), gray=0.9), images / 255, atol=1e-5)


@pytest.mark.parametrize("size, kernel", [(32, 5), (64, 7), (224, 23)])
@pytest.mark.parametrize("u", [0.0, 0.4, 1.0])
def test_blur(size, kernel, u):
    images = pictures(2, size)
    ours = undo(render(View(size, blur=0.5), images, numbers(2, blur=0.1, sigma=u)))
    theirs = f.gaussian_blur(images / 255, [kernel, kernel], [0.1 + u * 1.9])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_blur_chooses_its_own_samples():
    images, u = pictures(), numbers(4)
    u[:, AT["blur"]] = [0.1, 0.9, 0.9, 0.1]
    u[:, AT["sigma"]] = [1.0, 0.0, 0.0, 0.2]
    ours = undo(render(View(64, blur=0.5), images, u))
    torch.testing.assert_close(ours[1:3], images[1:3] / 255, atol=1e-6, rtol=0)
    for i, sigma in ((0, 2.0), (3, 0.48)):
        torch.testing.assert_close(ours[i], f.gaussian_blur(images[i] / 255, [7, 7], [sigma]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "scale, ratio", [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 1.0), (3 / 4, 4 / 3)), ((0.6, 1.0), (0.5, 2))]
)
def test_crops_are_distributed_as_torchvisions(scale, ratio):
    """Area, aspect and place, on an image large enough that torchvision's whole pixels do not show."""
    n, side = 3000, 2000
    torch.manual_seed(0)
    blank = torch.empty(3, side, side, dtype=torch.uint8)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(n)]) / side
    top, left, h, w = theirs.T
    box = _crop(View(64, scale=scale, ratio=ratio), uniforms(0, 0, np.arange(n), "a", View.numbers)[:, :FIRST])
    cx, cy, hw, hh = box.T
    for ours, other in (
        (hw * hh, w * h),
        (np.log(hw / hh), np.log(w / h)),
        ((cx - hw + 1) / 2, left),
        ((cy - hh + 1) / 2, top),
        (cx * cy, (2 * left + w - 1) * (2 * top + h - 1)),
    ):
        assert stats.ks_2samp(ours, other).pvalue > 1e-3
    assert np.all(abs(cx) + hw <= 1 + 1e-12) and np.all(abs(cy) + hh <= 1 + 1e-12)


def test_a_crop_that_never_fits_is_the_whole_image():
    box = _crop(View(64, scale=(0.9, 0.9), ratio=(3.0, 3.0)), numbers(2)[:, :FIRST])
    assert np.array_equal(box, [[0, 0, 1, 1]] * 2)


def share_changed(view: View, against: Tensor, images: Tensor, u: np.ndarray) -> float:
    changed = (undo(render(view, images, u)) - against).flatten(1).abs().amax(1) > 1e-3
    return float(changed.float().mean())


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("what", ["flip", "gray", "blur", "jitter_p"])
def test_chances(what, p):
    images = pictures(1, 16).expand(2000, 3, 16, 16)
    other: dict[str, Any] = {"jitter": (0.4, 0.4, 0.4, 0.1)} if what == "jitter_p" else {}
    other |= {"sigma": (1.0, 2.0)} if what == "blur" else {}
    u = uniforms(0, 0, np.arange(2000), "a", View.numbers)
    found = share_changed(View(16, **{what: p}, **other), images / 255, images, u)
    assert found == pytest.approx(p, abs=0 if p in (0, 1) else 0.035)


def test_flip_mirrors():
    images = pictures()
    ours = undo(render(View(64, flip=1.0), images, numbers(4)))
    torch.testing.assert_close(ours, images.flip(-1) / 255, atol=1e-5, rtol=0)


def test_a_view_depends_on_its_own_numbers_alone():
    images, view = pictures(16), View(64, (0.2, 1), (0.75, 1.33), 0.5, 2.0, (0.4, 0.4, 1.0, 0.5), 0.8, 0.2, 0.5)
    u = uniforms(3, 1, np.arange(16), "a", View.numbers)
    whole = render(view, images, u)
    order = np.random.default_rng(0).permutation(16)
    torch.testing.assert_close(render(view, images[order], u[order]), whole[order], atol=1e-5, rtol=0)
    for i in range(16):
        torch.testing.assert_close(render(view, images[i : i + 1], u[i : i + 1])[0], whole[i], atol=1e-5, rtol=0)
    assert torch.equal(render(view, images, u), whole)
    assert whole.is_contiguous(memory_format=torch.channels_last) and whole.dtype == torch.float32
    assert undo(whole).min() >= -1e-5 and undo(whole).max() <= 1 + 1e-5


def test_plain_is_torchvisions_resize():
    images = pictures(2, 64)
    for size in (64, 48, 32, 80):
        theirs = f.normalize(f.resize(images / 255, [size, size], antialias=True), list(MEAN), list(STD))
        torch.testing.assert_close(plain(images, size), theirs, atol=1e-5, rtol=0)


def test_normalise():
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(normalise(x), tf.normalize(x, list(MEAN), list(STD)))


# Patches


def ramp(side: int) -> Tensor:
    """Red is the column, green the row, of a pixel's centre, in 255ths of the side."""
    at = (torch.arange(side) + 0.5) / side * 255
    return torch.stack([at.expand(side, side), at[:, None].expand(side, side), torch.zeros(side, side)])


@pytest.mark.parametrize("side, patch", [(64, 24), (112, 25), (224, 49), (292, 64)])
def test_patches_lie_in_their_cells_in_reading_order(side, patch):
    n, grid = 200, PatchGrid(patch, gray=0.0)
    u = uniforms(0, 0, np.arange(n), "a", PatchGrid.numbers)
    images = ramp(side).round().to(torch.uint8).expand(n, 3, side, side)
    x = undo(patches(grid, images, u)).reshape(n, 9, 3, patch, patch)
    middle = x.mean((3, 4)).numpy()[:, :, :2]  # the place of each patch's centre, (x, y)
    corner = u[:, :2] * (1 - grid.crop)
    slack = grid.part / 2 - 1.0 / side  # a patch's half, less a pixel for rounding
    for cell in range(9):
        low = corner + np.array([cell % 3, cell // 3]) * grid.cell
        assert np.all(middle[:, cell] - slack >= low - 0.004), cell
        assert np.all(middle[:, cell] + slack <= low + grid.cell + 0.004), cell
    inside = middle - corner[:, None] - np.array([[c % 3, c // 3] for c in range(9)]) * grid.cell - grid.part / 2
    room = grid.cell - grid.part
    assert stats.kstest(inside[:, 0, 0] / room, "uniform").statistic < 0.25
    assert abs(np.corrcoef(inside[:, 0, 0], inside[:, 8, 0])[0, 1]) < 0.3
    span = (x[:, :, 0, 0, -1] - x[:, :, 0, 0, 0]).mean().item()
    assert span == pytest.approx(grid.part * (1 - 1 / patch), abs=1.0 / side)


def test_a_patch_at_its_own_scale_is_copied():
    """Seven eighths of a pixel's shift would blur it, and the blur would tell of the place."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 292, 292), dtype=torch.uint8)
    x = undo(patches(PatchGrid(64, gray=0.0), images, uniforms(0, 0, np.arange(3), "a", 21)).flatten(0, 1))
    levels = x * 255
    assert (levels - levels.round()).abs().max() < 1e-2
    wanted = levels.round()[0, :, 20:40, 20:40].to(torch.uint8)
    windows = images[0].unfold(1, 20, 1).unfold(2, 20, 1)  # (3, 273, 273, 20, 20)
    assert (windows == wanted[:, None, None]).all(-1).all(-1).all(0).sum() == 1


@pytest.mark.parametrize("gray", [0.0, 0.66, 1.0])
def test_share_without_colour(gray):
    n = 1500
    u = uniforms(0, 0, np.arange(n), "a", PatchGrid.numbers)
    x = undo(patches(PatchGrid(8, gray), pictures(1, 32).expand(n, 3, 32, 32), u).flatten(0, 1))
    plain_patch = (x - x.mean(1, keepdim=True)).flatten(1).abs().amax(1).reshape(n, 9) < 1e-3
    assert (plain_patch.all(1) == plain_patch.any(1)).all()  # all nine of an image, or none
    assert plain_patch[:, 0].float().mean().item() == pytest.approx(gray, abs=0 if gray in (0, 1) else 0.04)


def test_many_boxes_of_one_image_are_as_many_images():
    images = pictures(3)
    box = torch.rand(27, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    still = torch.zeros(27, dtype=torch.float64)
    ours = _sample(images, box, still + 1, still, 16, each=9)
    torch.testing.assert_close(ours, _sample(images.repeat_interleave(9, 0), box, still + 1, still, 16))
