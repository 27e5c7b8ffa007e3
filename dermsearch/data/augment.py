"""Views: what a task declares about the pictures it wants, and their making, batched, on the device.

Every number that a view depends on is drawn by `counter.uniforms`, so a case looks the same in an epoch
whichever worker, batch or device renders it. Crop, flip, rotation and resize are one bilinear sampling;
brightness, contrast, saturation, hue and grayscale are one affine map of colour per sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet
STD = (0.229, 0.224, 0.225)

_LUMA = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_TRIES = 10  # of torchvision's RandomResizedCrop, before it takes the whole image


@dataclass(frozen=True)
class View:
    """A random picture of a case: a resized crop and what is done to it. Defaults do nothing."""

    size: int
    scale: tuple[float, float] = (1.0, 1.0)  # share of the area
    ratio: tuple[float, float] = (1.0, 1.0)  # width / height of the crop
    flip: float = 0.0
    rotate: float = 0.0  # at most so many degrees, either way
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    jitter_p: float = 0.0
    gray: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)

    numbers = 2 * _TRIES + 12  # random numbers that a view takes


def render(view: View, images: Tensor, u: np.ndarray) -> Tensor:
    """uint8 (n, 3, s, s) and (n, View.numbers) uniforms -> normalised float (n, 3, size, size)."""
    box = torch.from_numpy(_crop(view, u[:, : 2 * _TRIES + 2]))
    u = u[:, 2 * _TRIES + 2 :]
    flip = np.where(u[:, 0] < view.flip, -1.0, 1.0)
    angle = np.radians((2 * u[:, 1] - 1) * view.rotate)
    x = _sample(images, box, torch.from_numpy(flip), torch.from_numpy(angle), view.size)
    if view.jitter_p or view.gray:
        x = _colour(view, x, u[:, 2:8])
    if view.blur:
        x = _blur(view, x, u[:, 8], u[:, 9])
    return normalise(x)


def normalise(x: Tensor) -> Tensor:
    """[0, 1] -> zero mean and unit variance over ImageNet, in the layout that convolutions like."""
    mean, std = torch.tensor(MEAN, device=x.device), torch.tensor(STD, device=x.device)
    x = (x - mean[:, None, None]) / std[:, None, None]
    return x.contiguous(memory_format=torch.channels_last)


def plain(images: Tensor, size: int) -> Tensor:
    """The whole image at `size`, as protocols and banks see it: uint8 (n, 3, s, s) -> normalised float."""
    x = images.float() / 255
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalise(x)


@dataclass(frozen=True)
class PatchGrid:
    """Nine patches of a 3 x 3 grid over a random crop, each at a random place in its cell.

    The proportions are those of 64 px patches in 85 px cells of a 255 px crop of a 292 px image.
    """

    patch: int  # side of a patch in pixels
    gray: float = 0.66  # for the whole image

    numbers = 2 + 1 + 18
    crop = 255 / 292
    cell = 85 / 292
    part = 64 / 292


def patches(grid: PatchGrid, images: Tensor, u: np.ndarray) -> Tensor:
    """uint8 (n, 3, s, s) -> normalised float (n, 9, 3, patch, patch), cells in reading order."""
    n = len(images)
    corner = u[:, :2] * (1 - grid.crop)  # (n, 2), x and y, as shares of the side
    cells = np.stack(np.meshgrid(np.arange(3), np.arange(3)), -1).reshape(9, 2) * grid.cell  # row-major, (x, y)
    inside = u[:, 3:21].reshape(n, 9, 2) * (grid.cell - grid.part)
    centre = corner[:, None] + cells[None] + inside + grid.part / 2
    if round(grid.part * images.shape[-1]) == grid.patch:  # at its own scale a patch is copied, not blurred
        side = images.shape[-1]
        centre = (np.round(centre * side - grid.patch / 2) + grid.patch / 2) / side
    half = np.full((n, 9, 2), grid.part / 2)
    if round(grid.part * images.shape[-1]) == grid.patch:
        half[:] = grid.patch / images.shape[-1] / 2
    box = torch.from_numpy(np.concatenate([2 * centre - 1, 2 * half], -1).reshape(n * 9, 4))
    still = torch.zeros(n * 9, dtype=torch.float64)
    x = _sample(images, box, still + 1, still, grid.patch, each=9)
    gray = torch.from_numpy(np.repeat(u[:, 2] < grid.gray, 9)).to(x.device)
    luma = (x * _LUMA.to(x.device)[:, None, None]).sum(1, keepdim=True)
    x = torch.where(gray[:, None, None, None], luma, x)
    return normalise(x).reshape(n, 9, 3, grid.patch, grid.patch)


def _crop(view: View, u: np.ndarray) -> np.ndarray:
    """(n, 4): centre and half-extent of the crop in [-1, 1] coordinates; the first try that fits, else the whole."""
    n = len(u)
    area = view.scale[0] + u[:, :_TRIES] * (view.scale[1] - view.scale[0])
    low, high = (math.log(r) for r in view.ratio)
    ratio = np.exp(low + u[:, _TRIES : 2 * _TRIES] * (high - low))
    w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (w <= 1) & (h <= 1)
    first = fits.argmax(1)
    rows = np.arange(n)
    none = ~fits.any(1)
    w = np.where(none, 1.0, w[rows, first])
    h = np.where(none, 1.0, h[rows, first])
    place = u[:, 2 * _TRIES : 2 * _TRIES + 2] * 2 - 1
    return np.stack([place[:, 0] * (1 - w), place[:, 1] * (1 - h), w, h], 1)


def _sample(images: Tensor, box: Tensor, flip: Tensor, angle: Tensor, size: int, each: int = 1) -> Tensor:
    """Bilinear sampling of one box per row (`each` boxes per image) -> float (n * each, 3, size, size) in [0, 1]."""
    cx, cy, hw, hh = box.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [hw * cos * flip, -hh * sin, cx, hw * sin * flip, hh * cos, cy],
        1,
    ).reshape(-1, 2, 3)
    theta = theta.to(device=images.device, dtype=torch.float32)
    x = images.float() / 255
    if each > 1:  # a tall output per image instead of a copy of the image per box
        grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
        grid = grid.reshape(len(images), each * size, size, 2)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = x.reshape(len(images), 3, each, size, size).transpose(1, 2)
        return x.reshape(-1, 3, size, size)
    grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _colour(view: View, x: Tensor, u: np.ndarray) -> Tensor:
    """Brightness, contrast, saturation, hue and grayscale as one affine map per sample: x -> A x + b."""
    n = len(x)
    t = torch.from_numpy(u).float()
    on = (t[:, 0] < view.jitter_p).float()  # off: every factor is neutral
    b, c, s, h = ((t[:, i + 1] * 2 - 1) * view.jitter[i] * on for i in range(4))
    eye = torch.eye(3).expand(n, 3, 3)
    luma = _LUMA.expand(3, 3)  # every row is the luma weights: the grey of a colour, three times
    mean = x.mean((2, 3)).cpu()  # (n, 3)
    bright = (1 + b)[:, None, None] * eye
    # Contrast moves colours away from the image's mean grey, a constant per sample.
    grey = ((bright @ mean[:, :, None])[:, :, 0] * _LUMA).sum(1)
    offset = (-c * grey)[:, None].expand(n, 3)
    a = (1 + c)[:, None, None] * bright
    saturate = (1 + s)[:, None, None] * eye - s[:, None, None] * luma
    a, offset = saturate @ a, (saturate @ offset[:, :, None])[:, :, 0]
    # Hue as a rotation of the chroma plane, which is linear. Red, yellow, green lie clockwise in it, so a positive
    # shift, which runs through them in this order, turns by a negative angle.
    turn = _hue(-h * 2 * math.pi)
    a, offset = turn @ a, (turn @ offset[:, :, None])[:, :, 0]
    grays = (t[:, 5] < view.gray)[:, None, None]
    a = torch.where(grays, luma @ a, a)
    offset = torch.where(grays[:, :, 0], (luma @ offset[:, :, None])[:, :, 0], offset)
    a, offset = a.to(x.device), offset.to(x.device)
    y = torch.baddbmm(offset[:, :, None], a, x.reshape(n, 3, -1))
    return y.reshape(x.shape).clamp_(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """(n,) radians -> (n, 3, 3) rotations about the grey axis."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).reshape(-1, 3, 3)
    return torch.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ


def _blur(view: View, x: Tensor, chance: np.ndarray, amount: np.ndarray) -> Tensor:
    """Gaussian blur of the chosen samples, each with its own sigma, as two grouped convolutions."""
    chosen = np.flatnonzero(chance < view.blur)
    if not len(chosen):
        return x
    index = torch.from_numpy(chosen).to(x.device)
    sigma = torch.from_numpy(view.sigma[0] + amount[chosen] * (view.sigma[1] - view.sigma[0]))
    radius = max(1, round(view.size * 0.05))  # a kernel of a tenth of the side
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at[None] / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).float().to(x.device)  # (m, k)
    m, side = len(chosen), view.size
    y = x[index].reshape(1, m * 3, side, side)
    y = F.pad(y, (radius,) * 4, mode="reflect")
    kernel = kernel.repeat_interleave(3, 0)[:, None]  # (3m, 1, k)
    y = F.conv2d(y, kernel[:, :, None, :], groups=m * 3)
    y = F.conv2d(y, kernel[:, :, :, None], groups=m * 3)
    return x.index_copy(0, index, y.reshape(m, 3, side, side))
