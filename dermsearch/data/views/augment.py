"""Views: what a task declares about the pictures it wants, and their making, batched, on the device.

Every number that a view depends on is drawn by `arrays.uniforms`, so a case looks the same in an epoch whichever
worker, batch or device renders it. What they come to is computed where they lie, by the same lines. A view is made in
this order, which is that of SimCLR, MoCo, BYOL and DINO:

    crop, flips, resize -> rotation -> brightness, contrast, saturation, hue -> grayscale -> blur -> solarize
    -> normalisation

Parameters are drawn as torchvision v2 draws them, and with the same parameters the pixels are its own (resized as it
resizes bytes on a CPU, floats on a GPU: a level of 255 apart at most), with two exceptions: the colour changes keep
their order, and a rotation sees what lies beside the crop.

On a CPU only the samples that are chosen for a change go through it. On a GPU all do, the others with numbers that do
nothing, since the host would have to wait for the choice (see `alike`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.views import colour, on_device
from dermsearch.data.views.arrays import Array, space
from dermsearch.data.views.chunks import along, on_cpu, runs, sample, sample_whole
from dermsearch.data.views.pictures import Pictures
from dermsearch.data.views.resample import blur, extent, turn

TRIES = 10  # of torchvision's RandomResizedCrop, before it takes a central crop


JITTERS = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # factors that change nothing
SHARP = 1e-3  # a sigma that blurs nothing: beside its middle a kernel of it is 0
DARK = 2.0  # a threshold that nothing reaches


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

    @property
    def side(self) -> int:
        """Of what is made first: what a turned view sees lies in a larger one."""
        if not self.rotate:
            return self.size
        sharp = math.radians(min(self.rotate, 45))
        return self.size + 2 * math.ceil(self.size * (math.cos(sharp) + math.sin(sharp) - 1) / 2 + 1)

    @property
    def side_of_kernel(self) -> int:
        """Of the blur, in pixels."""
        return self.kernel or 2 * max(1, round(self.size * 0.05)) + 1


@dataclass(frozen=True)
class Drawn:
    """The parameters of n views, as `View` declares them, on the host or on the device."""

    box: Array  # (n, 4) top, left, height, width in whole pixels of the canvas
    flip: Array  # (n,) bool, as are all that are chosen
    vflip: Array
    angle: Array  # degrees, counter-clockwise
    jitter: Array
    factors: Array  # (n, 4) of brightness, contrast, saturation; shift of hue
    gray: Array
    blur: Array
    sigma: Array
    solarize: Array


def draw(view: View, frames: Array, u: Array) -> Drawn:
    """Parameters from (n, View.numbers) uniforms: row by row, so a view depends on its own numbers alone."""
    box = crop(view, frames, u[:, : 2 * TRIES + 2])
    flip, angle, jitter, *strengths, gray, blurred, sigma, vflip, solarize = u[:, 2 * TRIES + 2 :].T
    low = [*(max(0.0, 1 - strength) for strength in view.jitter[:3]), -view.jitter[3]]
    high = [neutral + strength for neutral, strength in zip(NEUTRAL, view.jitter, strict=True)]
    return Drawn(
        box,
        flip < view.flip,
        vflip < view.vflip,
        (2 * angle - 1) * view.rotate,
        jitter < view.jitter_p,
        space(u).stack([a + s * (b - a) for a, b, s in zip(low, high, strengths, strict=True)], 1),
        gray < view.gray,
        blurred < view.blur,
        view.sigma[0] + sigma * (view.sigma[1] - view.sigma[0]),
        solarize < view.solarize,
    )


def crop(view: View, frames: Array, u: Array) -> Array:
    """(n, 4) boxes in whole pixels: ten areas, ten ratios, place across, place down; the first try that fits."""
    xp = space(u)
    top, left, height, width = frames.T[:, :, None]
    area = height * width * (view.scale[0] + u[:, :TRIES] * (view.scale[1] - view.scale[0]))
    low, high = (math.log(r) for r in view.ratio)
    ratio = xp.exp(low + u[:, TRIES : 2 * TRIES] * (high - low))
    w, h = xp.round(xp.sqrt(area * ratio)), xp.round(xp.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits & (fits.cumsum(1) == 1)
    w, h = (w * first).sum(1)[:, None], (h * first).sum(1)[:, None]
    x = xp.floor(u[:, 2 * TRIES, None] * (width - w + 1))
    y = xp.floor(u[:, 2 * TRIES + 1, None] * (height - h + 1))
    # None fits: the largest central crop whose ratio is allowed.
    most_w = xp.minimum(width, xp.round(height * view.ratio[1])).clip(1)
    most_h = xp.minimum(height, xp.round(width / view.ratio[0])).clip(1)
    central = xp.concatenate([(height - most_h) // 2, (width - most_w) // 2, most_h, most_w], 1)
    box = xp.where(fits.any(1)[:, None], xp.concatenate([y, x, h, w], 1), central)
    return box + xp.concatenate([top, left, xp.zeros_like(top), xp.zeros_like(top)], 1)


def largest(view: View, frames: np.ndarray) -> float:
    """No side of a crop is longer in pixels, whatever is drawn."""
    height, width = frames[:, 2:].T
    h, w = (np.sqrt(view.scale[1] * height * width * r) for r in (1 / view.ratio[0], view.ratio[1]))
    # Where every try fits there is no central crop, and the sides are those of the largest area.
    sure = (h <= height) & (w <= width) & (view.scale[0] * height * width * min(view.ratio[0], 1 / view.ratio[1]) >= 1)
    return float(np.where(sure, np.maximum(h, w) + 0.5, np.maximum(height, width)).max(initial=1.0))


def render(view: View, pictures: Pictures, u: np.ndarray) -> Tensor:
    """Pictures on the host and (n, View.numbers) uniforms -> normalised float (n, 3, size, size)."""
    drawn = draw(view, pictures.frames, u)
    # Sorted by a Gray code, the samples chosen for a jitter or a blur lie in one run, those for the others in a few.
    code = drawn.jitter * 8 + drawn.blur * 4 + drawn.gray * 2 + drawn.solarize
    key = code ^ code >> 1 ^ code >> 2 ^ code >> 3
    table = np.concatenate([np.radians(drawn.angle)[:, None], drawn.factors, drawn.sigma[:, None]], 1)

    def change(x: Tensor, rows: np.ndarray) -> Tensor:
        angle, *factors, sigma = torch.from_numpy(table[rows]).float().unbind(1)
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
            sharp.copy_(blur(sharp, sigma[run], extent(drawn.sigma[rows][run], view.side_of_kernel, view.size)))
        for run in runs(drawn.solarize[rows]):
            colour.solarize(flat[:, run], view.threshold)
        return x

    if on_cpu(pictures) and not view.rotate:
        return sample_whole(pictures, drawn.box, np.stack([drawn.vflip, drawn.flip], 1), view.size, key, change)
    axes = axes_of(view, drawn, pictures.frames)[:, None]
    return sample(pictures, axes, (view.side, view.size), key, change)[:, 0]


def axes_of(view: View, drawn: Drawn, frames: Array) -> Array:
    """(n, 8): what a view sees of a picture; turned, all that lies in its frame."""
    limits = frames if view.rotate else drawn.box
    return along(drawn.box, limits, view.size, view.side, drawn.vflip, drawn.flip)


def alike(view: View, pictures: Pictures, u: Tensor) -> Tensor:
    """Pictures and (n, e, View.numbers) uniforms on a device -> float (n, e, 3, size, size): e views of each picture.

    Nothing that was drawn is read: every sample goes through each change that the view declares, all of them at once.
    """
    frames = pictures.frames_there[:, None].expand(*u.shape[:2], 4).flatten(0, 1)
    drawn = draw(view, frames, u.flatten(0, 1))
    angle = torch.deg2rad(drawn.angle).float()
    factors = [torch.where(drawn.jitter, f, n).float() for f, n in zip(drawn.factors.T, NEUTRAL, strict=True)]
    gray = drawn.gray.float()
    sigma = torch.where(drawn.blur, drawn.sigma, SHARP).float()
    threshold = torch.where(drawn.solarize, view.threshold, DARK)[:, None]
    radius = extent(np.array(view.sigma), view.side_of_kernel, view.size)

    def change(x: Tensor, part: slice) -> Tensor:
        if view.rotate:
            x = turn(x, angle[part], view.size)
        flat = x.flatten(2)  # (3, b, pixels)
        if view.jitter_p:
            for jitter, factor, strength in zip(JITTERS, factors, view.jitter, strict=True):
                if strength:
                    jitter(flat, factor[part])
        if view.gray:
            colour.gray(flat, gray[part])
        if view.blur:
            sharp = x.transpose(0, 1)
            sharp.copy_(blur(sharp, sigma[part], radius))
        if view.solarize:
            colour.solarize(flat, threshold[part])
        return x

    axes, step = axes_of(view, drawn, frames).unflatten(0, u.shape[:2]), largest(view, pictures.frames) / view.size
    return on_device.sample(pictures, axes, (view.side, view.size), step, change)


def plain(pictures: Pictures, size: int) -> Tensor:
    """The whole of each picture at `size`, as protocols and banks see it: normalised float (n, 3, size, size)."""
    if on_cpu(pictures):
        return sample_whole(pictures, pictures.frames, np.zeros((len(pictures), 2)), size)
    axes = along(pictures.frames_there, pictures.frames_there, size)[:, None]
    return on_device.sample(pictures, axes, (size, size), pictures.frames.max(initial=1) / size)[:, 0]


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


def patch_axes(grid: PatchGrid, frames: Array, u: Array) -> Array:
    """(n, 9, 8): where the patches lie."""
    n, xp = len(u), space(u)
    side = xp.amin(frames[:, 2:], 1)[:, None, None]  # (n, 1, 1) of the square
    corner = frames[:, None, :2] + (frames[:, None, 2:] - side) // 2  # (n, 1, 2), y and x
    cell = (u[:, :9] >= 0).cumsum(1) - xp.ones_like(u[:, :9])  # (n, 9) from 0 to 8, row-major
    cells = xp.stack([cell // 3, cell % 3], 2) * grid.cell
    inside = xp.flip(u[:, 3:21].reshape(n, 9, 2), (2,)) * (grid.cell - grid.part)
    place = side * (xp.flip(u[:, None, :2], (2,)) * (1 - grid.crop) + cells + inside)  # (n, 9, 2)
    part = xp.broadcast_to(side * grid.part, place.shape)
    own = xp.round(part) == grid.patch  # at its own scale a patch is copied, not blurred
    place = xp.where(own, xp.round(place + (part - grid.patch) / 2), place)
    box = xp.concatenate([corner + place, xp.where(own, grid.patch, part)], 2).reshape(-1, 4)
    limits = xp.broadcast_to(frames[:, None], (n, 9, 4)).reshape(-1, 4)
    return along(box, limits, grid.patch).reshape(n, 9, 8)


def patches(grid: PatchGrid, pictures: Pictures, u: Array) -> Tensor:
    """(n, PatchGrid.numbers) uniforms -> normalised float (n, 9, 3, patch, patch), cells in reading order.

    Uniforms lie beside the pictures: an array on the host, or a tensor, of which nothing is read.
    """
    gray, sides = u[:, 2] < grid.gray, (grid.patch, grid.patch)
    if isinstance(u, Tensor):
        share = gray.float()[:, None].expand(-1, 9).flatten()
        step = max(1.0, pictures.frames[:, 2:].min(1).max(initial=0) * grid.part / grid.patch)

        def grayed(x: Tensor, part: slice) -> Tensor:
            colour.gray(x.flatten(2), share[part])
            return x

        return on_device.sample(pictures, patch_axes(grid, pictures.frames_there, u), sides, step, grayed)

    def change(x: Tensor, rows: np.ndarray) -> Tensor:
        for run in runs(np.repeat(gray[rows], 9)):
            colour.gray(x[:, run])
        return x

    return sample(pictures, patch_axes(grid, pictures.frames, u), sides, gray, change)
