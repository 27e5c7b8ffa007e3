"""Views against torchvision's: distributions of parameters, and pixels with the same parameters.

Pixels are equal within 1e-5, a four-hundredth of a level of 255; within 1e-4 after a blur, whose tail is cut, and after
a rotation, inside its picture. They are those of pictures resized as bytes on a CPU, as floats where `floats` are asked
for, which is what a GPU does; the two differ by at most a level.
"""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from dermsearch.data.domain import SKIN
from dermsearch.data.views.augment import (
    TRIES,
    PatchGrid,
    View,
    crop,
    draw,
    patches,
    plain,
    render,
)
from dermsearch.data.views.pictures import Pictures
from dermsearch.numbers import uniforms

f = v2.functional
MEAN, STD = SKIN.statistics["imagenet"]
FIRST = 2 * TRIES + 2  # where the numbers begin that follow the crop's
FIELDS = ["flip", "angle", "jitter", "brightness", "contrast", "saturation", "hue", "gray", "blur", "sigma"]
FIELDS += ["vflip", "solarize"]
AT = {"x": FIRST - 2, "y": FIRST - 1, **{name: FIRST + i for i, name in enumerate(FIELDS)}}
ALL = View(
    48, (0.2, 1), (0.75, 1.33), 0.5, 2.0, (0.4, 0.4, 1.0, 0.5), 0.8, 0.2, 0.5, vflip=0.5, solarize=0.3, threshold=0.6
)


def numbers(n: int = 1, **given: float) -> np.ndarray:
    """The uniforms of a view; 0.5, which is the middle, where nothing is given. `x`, `y`: the crop's place."""
    u = np.full((n, View.numbers), 0.5)
    for name, value in given.items():
        u[:, AT[name]] = value
    return u


def undo(x: Tensor) -> Tensor:
    """Normalised -> [0, 1]."""
    return x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def noisy(n: int = 4, height: int = 64, width: int = 64) -> Tensor:
    """Smooth colours with some noise, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 7, 7, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return ((x + 0.1 * torch.rand(x.shape, generator=generator)).clamp(0, 1) * 255).round().to(torch.uint8)


LEVEL = 1.02 / 255


@pytest.fixture(params=["bytes", "floats"])
def theirs_of(request, monkeypatch):
    """What torchvision is given, for either way to resize."""
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: request.param == "bytes")
    return {"bytes": lambda images: images, "floats": lambda images: images / 255}[request.param]


def unit(x: Tensor) -> Tensor:
    """Bytes or floats -> [0, 1]."""
    return x / 255 if x.dtype == torch.uint8 else x


def inner(x: Tensor, border: int) -> Tensor:
    return x[..., border:-border, border:-border]


def near(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def test_numbers_are_counted():
    assert len(FIELDS) + FIRST == View.numbers


def test_a_view_that_does_nothing():
    images = noisy()
    near(undo(render(View(64), Pictures(images), numbers(4))), images / 255)


# Crops


@pytest.mark.parametrize("flip, vflip", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("box", [(8, 16, 32, 32), (0, 5, 17, 40), (20, 0, 40, 24), (0, 0, 60, 90), (59, 89, 1, 1)])
@pytest.mark.parametrize("size", [24, 64])
def test_crop_flips_and_resize(box, flip, vflip, size, theirs_of):
    """On a picture that is no square, larger and smaller than the view."""
    images = noisy(height=60, width=90)
    top, left, height, width = box
    share = height * width / (60 * 90)
    view = View(size, scale=(share, share), ratio=(width / height,) * 2, flip=0.5, vflip=0.5)
    place = {"x": (left + 0.5) / (90 - width + 1), "y": (top + 0.5) / (60 - height + 1)}
    u = numbers(4, flip=0.1 if flip else 0.9, vflip=0.1 if vflip else 0.9, **place)
    x = f.crop(theirs_of(images), *box)
    x = f.horizontal_flip(x) if flip else x
    x = f.resize(f.vertical_flip(x) if vflip else x, [size, size], antialias=True)
    near(undo(render(view, Pictures(images), u)), unit(x))


def test_bytes_and_floats_differ_by_a_level_at_most(monkeypatch):
    images, u = noisy(40, 90, 70), uniforms(3, 1, np.arange(40), "a", View.numbers)
    view = View(48, (0.1, 1), (0.75, 1.33), 0.5, vflip=0.5)
    found, plainly = undo(render(view, Pictures(images), u)), undo(plain(Pictures(images), 48))
    monkeypatch.setattr("dermsearch.data.views.augment.on_cpu", lambda pictures: False)
    near(found, undo(render(view, Pictures(images), u)), LEVEL)
    near(plainly, undo(plain(Pictures(images), 48)), LEVEL)


@pytest.mark.parametrize("height, width", [(600, 600), (300, 700), (40, 60)])
@pytest.mark.parametrize(
    "scale, ratio", [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 1.0), (3 / 4, 4 / 3)), ((0.6, 1.0), (0.5, 2))]
)
def test_crops_are_distributed_as_torchvisions(scale, ratio, height, width):
    """Area, aspect and place."""
    n = 2000
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(64, scale, ratio)
    blank = torch.empty(3, height, width, dtype=torch.uint8)
    params = [theirs.make_params([blank]) for _ in range(n)]
    other = np.array([[p[k] for k in ("top", "left", "height", "width")] for p in params])
    frames = np.tile([0, 0, height, width], (n, 1))
    ours = crop(View(64, scale, ratio), frames, uniforms(0, 0, np.arange(n), "a", View.numbers)[:, :FIRST])
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    assert (ours[:, 2:] >= 1).all() and (ours == np.rint(ours)).all()

    def seen(box: np.ndarray) -> list[np.ndarray]:
        top, left, h, w = box.T
        return [h * w, w / h, left, top, left * top, left + w / 2]

    for mine, its in zip(seen(ours), seen(other), strict=True):
        assert stats.ks_2samp(mine, its).pvalue > 1e-3


@pytest.mark.parametrize("height, width", [(100, 100), (300, 100), (100, 300), (100, 110), (1, 50), (50, 2)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.0, 1.0), (3.0, 3.0)])
def test_a_crop_that_never_fits_is_torchvisions_central_one(ratio, height, width):
    theirs = v2.RandomResizedCrop(64, (1.5, 2.0), ratio).make_params([torch.empty(3, height, width)])
    ours = crop(View(64, (1.5, 2.0), ratio), np.array([[5, 7, height, width]]), numbers()[:, :FIRST])[0]
    found = [theirs[k] for k in ("top", "left", "height", "width")]
    assert list(ours) == [found[0] + 5, found[1] + 7, *found[2:]]


@pytest.mark.parametrize("share, degrees", [(1.0, 20.0), (0.0, -20.0), (0.75, 10.0), (0.5, 0.0)])
def test_rotation(share, degrees):
    images = noisy()
    ours = undo(render(View(64, rotate=20.0), Pictures(images), numbers(4, angle=share)))
    theirs = f.rotate(images / 255, degrees, v2.InterpolationMode.BILINEAR)
    near(inner(ours, 16), inner(theirs, 16), 1e-4)


def test_a_rotated_crop_is_smoothed_first_and_sees_beside_itself():
    images = noisy(height=200, width=200)
    view = View(50, scale=(0.25, 0.25), rotate=30.0)  # the central 100 x 100 to half
    ours = undo(render(view, Pictures(images), numbers(4, angle=1.0)))
    theirs = f.rotate(f.resize(images / 255, [100, 100], antialias=True), 30.0, v2.InterpolationMode.BILINEAR)
    near(inner(ours, 2), inner(f.center_crop(theirs, [50, 50]), 2), 1e-4)


# Colours and blur


def test_factors_are_distributed_as_torchvisions():
    n, strengths = 2000, (0.4, 1.3, 0.8, 0.2)
    torch.manual_seed(0)
    theirs = v2.ColorJitter(*strengths)
    params = [theirs.make_params([torch.empty(3, 4, 4)]) for _ in range(n)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    u = uniforms(0, 0, np.arange(n), "a", View.numbers)
    drawn = draw(
        View(64, jitter=strengths, jitter_p=0.8, sigma=(0.1, 2.0), rotate=30.0), np.array([[0, 0, 64, 64]] * n), u
    )
    for i, name in enumerate(names):
        assert stats.ks_2samp(drawn.factors[:, i], [float(p[name]) for p in params]).pvalue > 1e-3
    blurs = v2.GaussianBlur(5, (0.1, 2.0))
    assert stats.ks_2samp(drawn.sigma, [blurs.make_params([])["sigma"][0] for _ in range(n)]).pvalue > 1e-3
    turns = v2.RandomRotation(30.0)
    assert stats.ks_2samp(drawn.angle, [turns.make_params([])["angle"] for _ in range(n)]).pvalue > 1e-3
    chosen = np.corrcoef([drawn.jitter, *drawn.factors.T, drawn.sigma, drawn.angle])
    assert np.abs(chosen - np.eye(7)).max() < 0.08


@pytest.mark.parametrize("gray", [False, True])
def test_everything_together_in_its_order(gray, theirs_of):
    images = noisy(2, 100, 80)
    view = View(
        40, (0.5, 0.5), (1.0, 1.0), 1.0, 0.0, (0.8, 0.8, 0.8, 0.2), 1.0, 0.5, 1.0, vflip=1.0, solarize=1.0, kernel=5
    )
    given = {"brightness": 0.6, "contrast": 0.3, "saturation": 0.9, "hue": 0.1, "sigma": 0.4, "x": 0.3, "y": 0.9}
    ours = undo(render(view, Pictures(images), numbers(2, gray=0.1 if gray else 0.9, **given)))
    side = round((0.5 * 100 * 80) ** 0.5)
    top, left = int(0.9 * (100 - side + 1)), int(0.3 * (80 - side + 1))
    for mine, x in zip(ours, theirs_of(images), strict=True):
        x = f.vertical_flip(f.horizontal_flip(f.crop(x, top, left, side, side)))
        x = unit(f.resize(x, [40, 40], antialias=True))
        x = f.adjust_contrast(f.adjust_brightness(x, 1.16), 0.68)
        x = f.adjust_hue(f.adjust_saturation(x, 1.64), -0.16)
        x = f.rgb_to_grayscale(x, 3) if gray else x
        x = f.gaussian_blur(x, [5, 5], [0.86])
        sure = (x - 128 / 255).abs() > 1e-4  # at the threshold a last digit decides
        near(torch.where(sure, mine, 0), torch.where(sure, f.solarize(x, 128 / 255), 0), 1e-4)


@pytest.mark.parametrize("size, kernel, side", [(32, None, 5), (64, None, 7), (64, 3, 3), (224, None, 23)])
@pytest.mark.parametrize("u", [0.0, 0.4, 1.0])
def test_blur(size, kernel, side, u):
    images = noisy(2, size, size)
    ours = undo(render(View(size, blur=0.5, kernel=kernel), Pictures(images), numbers(2, blur=0.1, sigma=u)))
    near(ours, f.gaussian_blur(images / 255, [side, side], [0.1 + u * 1.9]), 1e-4)


def test_each_change_chooses_its_own_samples():
    """Every combination of jitter, grey, blur and solarize, in one batch."""
    images, view = noisy(16), View(64, jitter=(0.4, 0, 0, 0), jitter_p=0.5, gray=0.5, blur=0.5, solarize=0.5)
    u = numbers(16, brightness=1.0, sigma=1.0)
    on = (np.arange(16)[:, None] >> np.arange(4)) & 1
    u[:, [AT[k] for k in ("jitter", "gray", "blur", "solarize")]] = np.where(on, 0.1, 0.9)
    for mine, x, (jitter, gray, blur, solarize) in zip(
        undo(render(view, Pictures(images), u)), images, on, strict=True
    ):
        x = f.adjust_brightness(x / 255, 1.4) if jitter else x / 255
        x = f.rgb_to_grayscale(x, 3) if gray else x
        x = f.gaussian_blur(x, [7, 7], [2.0]) if blur else x
        sure = (x - 128 / 255).abs() > 1e-4
        x = f.solarize(x, 128 / 255) if solarize else x
        near(torch.where(sure, mine, 0), torch.where(sure, x, 0), 1e-4)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("what", ["flip", "vflip", "gray", "blur", "jitter_p", "solarize"])
def test_chances(what, p):
    images = noisy(1, 16, 16).expand(2000, 3, 16, 16)
    other: dict[str, Any] = {"jitter": (0.4, 0.4, 0.4, 0.1)} if what == "jitter_p" else {}
    other |= {"sigma": (1.0, 2.0)} if what == "blur" else {}
    u = uniforms(0, 0, np.arange(2000), "a", View.numbers)
    changed = undo(render(View(16, **{what: p}, **other), Pictures(images), u)) - images / 255
    found = float((changed.flatten(1).abs().amax(1) > 1e-3).float().mean())
    assert found == pytest.approx(p, abs=0 if p in (0, 1) else 0.035)


# Whose view it is


def test_a_view_depends_on_its_own_numbers_alone(monkeypatch):
    images, u = noisy(40), uniforms(3, 1, np.arange(40), "a", View.numbers)
    whole = render(ALL, Pictures(images), u)
    order = np.random.default_rng(0).permutation(40)
    near(render(ALL, Pictures(images[order]), u[order]), whole[order], 1e-5)
    near(render(ALL, Pictures(images).take(order[:7]), u[order[:7]]), whole[order[:7]], 1e-5)
    for i in range(40):
        near(render(ALL, Pictures(images[i : i + 1]), u[i : i + 1])[0], whole[i], 1e-5)
    assert torch.equal(render(ALL, Pictures(images), u), whole)
    monkeypatch.setattr("dermsearch.data.views.chunks.CACHE", 3 * 64 * 64 * 3)  # many chunks, by all threads
    near(render(ALL, Pictures(images), u), whole, 1e-5)
    assert whole.is_contiguous() and whole.dtype == torch.float32
    assert undo(whole).min() >= -1e-5 and undo(whole).max() <= 1 + 1e-5


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_make_no_difference(threads, monkeypatch):
    monkeypatch.setattr("dermsearch.data.views.chunks.CACHE", 3 * 64 * 64 * 4)
    images, u = noisy(30), uniforms(3, 1, np.arange(30), "a", View.numbers)
    before, whole = torch.get_num_threads(), render(ALL, Pictures(images), u)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(render(ALL, Pictures(images), u), whole)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_layout_of_pixels_makes_no_difference():
    images, u = noisy(6, 60, 50), uniforms(0, 0, np.arange(6), "a", View.numbers)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(render(ALL, Pictures(last), u), render(ALL, Pictures(images), u))


def test_none_is_a_batch_too():
    empty = Pictures(noisy(1)[:0])
    assert render(ALL, empty, numbers(0)).shape == (0, 3, 48, 48) and plain(empty, 8).shape == (0, 3, 8, 8)


# Frames


SIZES = [(64, 64), (40, 80), (80, 33), (80, 80), (1, 50), (50, 1)]


def framed() -> tuple[Pictures, list[Tensor]]:
    """Pictures of several sizes at several places of canvases full of garbage, and the pictures alone."""
    canvas = torch.randint(
        0, 256, (len(SIZES), 3, 90, 85), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    alone, frames = [], []
    for i, (height, width) in enumerate(SIZES):
        picture = noisy(1, height, width)[0]
        top, left = (90 - height) // (i + 1), (85 - width) * i // len(SIZES)
        canvas[i, :, top : top + height, left : left + width] = picture
        alone.append(picture)
        frames.append([top, left, height, width])
    return Pictures(canvas, np.array(frames)), alone


@pytest.mark.parametrize("view", [ALL, View(100), View(20, (0.5, 1), rotate=180.0)], ids=["all", "enlarged", "turned"])
def test_what_lies_outside_a_frame_is_never_seen(view):
    together, alone = framed()
    u = uniforms(0, 0, np.arange(len(alone)), "a", View.numbers)
    found = render(view, together, u)
    for i, picture in enumerate(alone):
        near(found[i], render(view, Pictures(picture[None]), u[i : i + 1])[0], 2e-5)


def test_plain_and_patches_keep_to_frames():
    together, alone = framed()
    grid = PatchGrid(12)
    u = uniforms(0, 0, np.arange(len(alone)), "a", PatchGrid.numbers)
    whole, parts = plain(together, 32), patches(grid, together, u)
    for i, picture in enumerate(alone):
        near(whole[i], plain(Pictures(picture[None]), 32)[0], 2e-5)
        near(parts[i], patches(grid, Pictures(picture[None]), u[i : i + 1])[0], 2e-5)


@pytest.mark.parametrize("border", [0.0, 0.1, 0.25])
def test_a_border_that_is_cut_is_sliced_off(border):
    images, u = noisy(5, 80, 60), uniforms(0, 0, np.arange(5), "a", View.numbers)
    off = round(border * 60)
    sliced = Pictures(images[..., off : 80 - off, off : 60 - off])
    cut = Pictures(images).cut(border)
    assert cut.pixels is images
    near(render(ALL, cut, u), render(ALL, sliced, u), 2e-5)
    near(plain(cut, 24), plain(sliced, 24), 2e-5)
    narrow = Pictures(noisy(1, 50, 1)).cut(0.4)
    assert narrow.frames.tolist() == [[0, 0, 50, 1]]  # something is left


@pytest.mark.parametrize("which", list(SKIN.statistics))
def test_statistics_normalise(which):
    images = noisy(2)
    mean, std = SKIN.statistics[which]
    theirs = f.normalize(images / 255, list(mean), list(std))
    for found in (
        plain(Pictures(images, None, mean, std), 64),
        render(View(64), Pictures(images, None, mean, std), numbers(2)),
    ):
        near(found, theirs, 2e-5)


def test_plain_is_torchvisions_resize(theirs_of):
    images = noisy(2, 64, 50)
    for size in (64, 48, 32, 80):
        near(undo(plain(Pictures(images), size)), unit(f.resize(theirs_of(images), [size, size], antialias=True)))


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
    x = undo(patches(grid, Pictures(images), u)).reshape(n, 9, 3, patch, patch)
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
    x = undo(patches(PatchGrid(64, gray=0.0), Pictures(images), uniforms(0, 0, np.arange(3), "a", 21)).flatten(0, 1))
    levels = x * 255
    assert (levels - levels.round()).abs().max() < 1e-2
    wanted = levels.round()[0, :, 20:40, 20:40].to(torch.uint8)
    windows = images[0].unfold(1, 20, 1).unfold(2, 20, 1)  # (3, 273, 273, 20, 20)
    assert (windows == wanted[:, None, None]).all(-1).all(-1).all(0).sum() == 1


@pytest.mark.parametrize("gray", [0.0, 0.66, 1.0])
def test_share_without_colour(gray):
    n = 1500
    u = uniforms(0, 0, np.arange(n), "a", PatchGrid.numbers)
    x = undo(patches(PatchGrid(8, gray), Pictures(noisy(1, 32, 32).expand(n, 3, 32, 32)), u).flatten(0, 1))
    plain_patch = (x - x.mean(1, keepdim=True)).flatten(1).abs().amax(1).reshape(n, 9) < 1e-3
    assert (plain_patch.all(1) == plain_patch.any(1)).all()  # all nine of an image, or none
    assert plain_patch[:, 0].float().mean().item() == pytest.approx(gray, abs=0 if gray in (0, 1) else 0.04)


def test_patches_of_an_oblong_are_those_of_its_central_square():
    images, u = noisy(4, 64, 101), uniforms(0, 0, np.arange(4), "a", PatchGrid.numbers)
    square = images[..., 18 : 18 + 64]
    near(patches(PatchGrid(10), Pictures(images), u)[:, 4], patches(PatchGrid(10), Pictures(square), u)[:, 4])
