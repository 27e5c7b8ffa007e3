"""Views: what a task declares about the pictures it wants, and their making, batched, on the device.

Every number that a view depends on is drawn by `counter.uniforms`, so a case looks the same in an epoch whichever
worker, batch or device renders it. A view is made in this order, which is that of SimCLR, MoCo, BYOL and DINO:

    crop, flips, resize -> rotation -> brightness, contrast, saturation, hue -> grayscale -> blur -> solarize
    -> normalisation

Parameters are drawn as torchvision v2 draws them, and with the same parameters the pixels are its own (resized as it
resizes bytes on a CPU, floats on a GPU: a level of 255 apart at most), with two exceptions: the colour changes keep
their order, and a rotation sees what lies beside the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dermsearch.data.views import colour
from dermsearch.data.views.chunks import along, on_cpu, onto, runs, sample, sample_whole
from dermsearch.data.views.pictures import Pictures
from dermsearch.data.views.resample import blur, extent, turn

TRIES = 10  # of torchvision's RandomResizedCrop, before it takes a central crop


JITTERS = (colour.brightness, colour.contrast, colour.saturation, colour.hue)


@dataclass(frozen=True)
class View:
    """A random picture of a case: a resized crop and what is done to it. Defaults do nothing."""

    size: int
    scale: tuple[float, float] = (1.0, 1.0)  # share of the area
    ratio: tuple[float, float] = (1.0, 1.0)  # width / height of the crop, in pixels
    flip: float = 0.0
    rotate: float = 0.0  # at most so many degrees, either way
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    jitter_p: float = 0.0
    gray: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    vflip: float = 0.0
    solarize: float = 0.0
    threshold: float = 128 / 255  # as bright and brighter is inverted
    kernel: int | None = None  # side of the blur in pixels, odd; None: a tenth of the view's

    numbers = 2 * TRIES + 14  # random numbers that a view takes; `draw` says which is what


@dataclass(frozen=True)
class Drawn:
    """The parameters of n views, as `View` declares them."""

    box: np.ndarray  # (n, 4) top, left, height, width in whole pixels of the canvas
    flip: np.ndarray  # (n,) bool, as are all that are chosen
    vflip: np.ndarray
    angle: np.ndarray  # degrees, counter-clockwise
    jitter: np.ndarray
    factors: np.ndarray  # (n, 4) of brightness, contrast, saturation; shift of hue
    gray: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray
    solarize: np.ndarray


def draw(view: View, frames: np.ndarray, u: np.ndarray) -> Drawn:
    """Parameters from (n, View.numbers) uniforms: row by row, so a view depends on its own numbers alone."""
    box = crop(view, frames, u[:, : 2 * TRIES + 2])
    flip, angle, jitter, *strengths, gray, blurred, sigma, vflip, solarize = u[:, 2 * TRIES + 2 :].T
    low = np.maximum(0, 1 - np.array(view.jitter))
    low[3] = -view.jitter[3]
    high = np.array([1.0, 1.0, 1.0, 0.0]) + view.jitter
    return Drawn(
        box,
        flip < view.flip,
        vflip < view.vflip,
        (2 * angle - 1) * view.rotate,
        jitter < view.jitter_p,
        low + np.stack(strengths, 1) * (high - low),
        gray < view.gray,
        blurred < view.blur,
        view.sigma[0] + sigma * (view.sigma[1] - view.sigma[0]),
        solarize < view.solarize,
    )


def crop(view: View, frames: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(n, 4) boxes in whole pixels: ten areas, ten ratios, place across, place down; the first try that fits."""
    top, left, height, width = frames.T[:, :, None]
    area = height * width * (view.scale[0] + u[:, :TRIES] * (view.scale[1] - view.scale[0]))
    low, high = (math.log(r) for r in view.ratio)
    ratio = np.exp(low + u[:, TRIES : 2 * TRIES] * (high - low))
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.argmax(1)[:, None]
    w, h = np.take_along_axis(w, first, 1), np.take_along_axis(h, first, 1)
    x = np.floor(u[:, 2 * TRIES, None] * (width - w + 1))
    y = np.floor(u[:, 2 * TRIES + 1, None] * (height - h + 1))
    # None fits: the largest central crop whose ratio is allowed.
    most_w = np.minimum(width, np.rint(height * view.ratio[1])).clip(1)
    most_h = np.minimum(height, np.rint(width / view.ratio[0])).clip(1)
    central = np.concatenate([(height - most_h) // 2, (width - most_w) // 2, most_h, most_w], 1)
    box = np.where(fits.any(1, keepdims=True), np.concatenate([y, x, h, w], 1), central)
    return box + np.concatenate([top, left, np.zeros_like(top), np.zeros_like(top)], 1)


def render(view: View, pictures: Pictures, u: np.ndarray) -> Tensor:
    """Pictures and (n, View.numbers) uniforms -> normalised float (n, 3, size, size)."""
    drawn = draw(view, pictures.frames, u)
    # Sorted by a Gray code, the samples chosen for a jitter or a blur lie in one run, those for the others in a few.
    code = drawn.jitter * 8 + drawn.blur * 4 + drawn.gray * 2 + drawn.solarize
    key = code ^ code >> 1 ^ code >> 2 ^ code >> 3
    table = np.concatenate([np.radians(drawn.angle)[:, None], drawn.factors, drawn.sigma[:, None]], 1)
    kernel = view.kernel or 2 * max(1, round(view.size * 0.05)) + 1

    def change(x: Tensor, rows: np.ndarray) -> Tensor:
        angle, *factors, sigma = onto(x.device, table[rows]).unbind(1)
        if view.rotate:
            x = turn(x, angle, view.size)
        flat = x.flatten(2)  # (3, b, pixels)
        for run in runs(drawn.jitter[rows]):
            for jitter, factor, strength in zip(JITTERS, factors, view.jitter, strict=True):
                if strength:
                    jitter(flat[:, run], factor[run])
        for run in runs(drawn.gray[rows]):
            colour.gray(flat[:, run])
        for run in runs(drawn.blur[rows]):
            sharp = x[:, run].transpose(0, 1)
            sharp.copy_(blur(sharp, sigma[run], extent(drawn.sigma[rows][run], kernel, view.size)))
        for run in runs(drawn.solarize[rows]):
            colour.solarize(flat[:, run], view.threshold)
        return x

    if on_cpu(pictures) and not view.rotate:
        return sample_whole(pictures, drawn.box, np.stack([drawn.vflip, drawn.flip], 1), view.size, key, change)
    side, limits = view.size, drawn.box
    if view.rotate:  # what a turned view sees lies in a larger one
        sharp = math.radians(min(view.rotate, 45))
        side += 2 * math.ceil(view.size * (math.cos(sharp) + math.sin(sharp) - 1) / 2 + 1)
        limits = pictures.frames
    axes = along(drawn.box, limits, view.size, side, drawn.vflip, drawn.flip)[:, None]
    return sample(pictures, axes, (side, view.size), key, change)[:, 0]


def plain(pictures: Pictures, size: int) -> Tensor:
    """The whole of each picture at `size`, as protocols and banks see it: normalised float (n, 3, size, size)."""
    if on_cpu(pictures):
        return sample_whole(pictures, pictures.frames, np.zeros((len(pictures), 2)), size)
    axes = along(pictures.frames, pictures.frames, size)[:, None]
    return sample(pictures, axes, (size, size))[:, 0]


def local_side(size: int) -> int:
    """Side of a small crop: 96 for 224, in steps of 16 as most networks take them, and never below 32."""
    return max(32, 16 * round(size * 96 / 224 / 16))


@dataclass(frozen=True)
class PatchGrid:
    """Nine patches of a 3 x 3 grid over a random crop of the central square, each at a random place in its cell.

    The proportions are those of 64 px patches in 85 px cells of a 255 px crop of a 292 px image.
    """

    patch: int  # side of a patch in pixels
    gray: float = 0.66  # for the whole image

    numbers = 2 + 1 + 18
    crop = 255 / 292
    cell = 85 / 292
    part = 64 / 292


def patches(grid: PatchGrid, pictures: Pictures, u: np.ndarray) -> Tensor:
    """(n, PatchGrid.numbers) uniforms -> normalised float (n, 9, 3, patch, patch), cells in reading order."""
    n, frames = len(u), pictures.frames
    side = frames[:, 2:].min(1)[:, None, None]  # (n, 1, 1) of the square
    corner = frames[:, None, :2] + (frames[:, None, 2:] - side) // 2  # (n, 1, 2), y and x
    cells = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="ij"), -1).reshape(9, 2) * grid.cell  # row-major
    inside = u[:, 3:21].reshape(n, 9, 2)[:, :, ::-1] * (grid.cell - grid.part)
    place = side * (u[:, None, 1::-1] * (1 - grid.crop) + cells + inside)  # (n, 9, 2)
    part = np.broadcast_to(side * grid.part, place.shape)
    own = np.rint(part) == grid.patch  # at its own scale a patch is copied, not blurred
    place = np.where(own, np.rint(place + (part - grid.patch) / 2), place)
    box = np.concatenate([corner + place, np.where(own, grid.patch, part)], 2).reshape(-1, 4)
    axes = along(box, np.repeat(frames, 9, 0), grid.patch).reshape(n, 9, 8)
    gray = u[:, 2] < grid.gray

    def change(x: Tensor, rows: np.ndarray) -> Tensor:
        for run in runs(np.repeat(gray[rows], 9)):
            colour.gray(x[:, run])
        return x

    return sample(pictures, axes, (grid.patch, grid.patch), gray, change)
