"""Crop, resize and blur as one thing: every row of a result is a weighted sum of a few rows of what it is made from.

Triangles and Gaussians are separable, so a picture takes two such passes with a transposition between them. A weighted
sum of looked-up rows is what an embedding bag computes, with weights of each sample's own, on CPU and GPU alike; it
does a tenth of the work of a product with the (mostly empty) matrix of weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TAIL = 4.0  # sigmas, where a Gaussian ends
GAP = 5  # pixels between rows: a power of two from row to row would share few lines of a cache


def mix(planes: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(c, r, d) rows, (b, k) which of them and how much of each -> (c, b, d) sums, the same rows in every plane."""
    c, r, d = planes.shape
    offset = r * torch.arange(c, device=index.device)[:, None, None]
    sums = F.embedding_bag(
        (index + offset).flatten(0, 1), planes.reshape(c * r, d), per_sample_weights=weight.repeat(c, 1), mode="sum"
    )
    return sums.reshape(c, len(index), d)


def reach(steps: np.ndarray) -> int:
    """How many pixels a triangle can cover at most if it steps so far."""
    return 1 + math.floor(2 * float(np.abs(steps).max(initial=1.0)))


def triangles(axis: Tensor, size: int, count: int) -> tuple[Tensor, Tensor]:
    """Antialiased linear interpolation along one axis: (b, 4) -> index and weight (b, size, count).

    A row is start, step, low, high: result i lies at start + (i + 1/2) step, and pixels from low up to high are seen;
    beyond them the outermost are repeated. A triangle is as wide as the step, at least one pixel, as torchvision's.
    """
    start, step, low, high = axis.t()[:, :, None]  # (b, 1) each
    i = torch.arange(size, device=axis.device) + 0.5
    centre = torch.addcmul(start, step, i).clamp_(low + 0.5, high - 0.5)  # (b, size)
    wide = step.abs().clamp_(min=1)
    first = (centre - wide + 0.5).floor_()
    pixel = first + torch.arange(count, device=axis.device)[:, None, None]  # (k, b, size), long rows first: faster
    weight = (pixel + 0.5).sub_(centre).abs_().div_(wide).neg_().add_(1).clamp_(min=0)
    weight.mul_(pixel >= low).mul_(pixel < high)
    weight.div_(weight.sum(0))
    return pixel.clamp_(low, high - 1).permute(1, 2, 0).long(), weight.permute(1, 2, 0)


def resample(pixels: Tensor, source: Tensor, down: tuple[Tensor, Tensor], across: tuple[Tensor, Tensor]) -> Tensor:
    """uint8 (m, H, W, 3) and, for each of b boxes, its picture and its triangles -> float (3, b, size, size) in [0, 1].

    The result lies on its side, columns first, as the second pass leaves it; no change of colour minds. Of one channel
    there is one plane.
    """
    m, height, width, channels = pixels.shape
    b, size, count = down[0].shape
    rows = torch.zeros(m, height, width + GAP, channels, device=pixels.device)
    rows[:, :, :width] = pixels
    index = down[0] + height * source[:, None, None]
    x = mix(rows.reshape(1, m * height, -1), index.reshape(-1, count), down[1].reshape(-1, count) / 255)
    x = x.reshape(b, size, width + GAP, channels)
    lying = torch.empty(channels, b, width, size, device=x.device)
    for c in range(channels):  # plane by plane, which is faster than at once
        lying[c].copy_(x[:, :, :width, c].transpose(1, 2))
    index = across[0] + width * torch.arange(b, device=x.device)[:, None, None]
    x = mix(lying.reshape(channels, b * width, size), index.reshape(-1, count), across[1].reshape(-1, count))
    return x.reshape(channels, b, size, size)


def crops(pixels: Tensor, jobs: list[list[int]], size: int) -> Tensor:
    """Boxes of whole pixels out of uint8 (m, c, H, W) on a CPU -> float (b, c, size, size) in [0, 1].

    A job is a picture's row, the top, left, height and width in it, and whether it is mirrored down and across. The
    processor's own instructions for bytes resize a picture in a fifth of the time of `resample`, to whole levels.
    """
    found = torch.empty(len(jobs), size, size, pixels.shape[1], dtype=torch.uint8).permute(0, 3, 1, 2)
    for i, (row, top, left, height, width, down, across) in enumerate(jobs):
        box = pixels[row : row + 1, :, top : top + height, left : left + width]
        if down or across:
            box = box.flip([2] * down + [3] * across)
        found[i] = F.interpolate(box, (size, size), mode="bilinear", antialias=True)[0]
    return torch.empty(found.shape).copy_(found).div_(255)


def turn(x: Tensor, angle: Tensor, size: int) -> Tensor:
    """Rotate (3, b, s, s) pictures that lie on their side about their centres, counter-clockwise; keep `size`."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, sin, zero, -sin, cos, zero], 1).reshape(-1, 2, 3) * (size / x.shape[-1])
    grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
    x = F.grid_sample(x.transpose(0, 1), grid, padding_mode="border", align_corners=False)
    return x.transpose(0, 1).contiguous()


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of (b, c, s, s), each sample with its own sigma; pictures are mirrored at their edges.

    A kernel has 2 radius + 1 numbers; those beyond 4 sigma, less than 1e-4 in all, are left out.
    """
    b, c, s, _ = x.shape
    at = torch.arange(-radius, radius + 1, device=x.device)
    far = at / sigma[:, None]  # (b, k)
    weight = torch.exp(-0.5 * far**2) * (far.abs() <= TAIL)
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(c * s, 0)
    row = (torch.arange(s, device=x.device)[:, None] + at).abs()  # (s, k)
    row = (s - 1) - ((s - 1) - row).abs()
    index = (row + s * torch.arange(b * c, device=x.device)[:, None, None]).flatten(0, 1)
    for _ in range(2):
        rows = x.reshape(1, b * c * s, s).contiguous()  # of one plane it may be a view, which is summed otherwise
        x = mix(rows, index, weight).reshape(b, c, s, s).transpose(2, 3)
    return x


def extent(sigmas: np.ndarray, kernel: int, size: int) -> int:
    """The radius that does for all these blurs."""
    return min(kernel // 2, size - 1, math.ceil(TAIL * float(sigmas.max())))
