"""Resampling and blur against torchvision's: equal within 1e-5 of float pictures, a blur within 1e-4 (its cut tail)."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from dermsearch.data.views.resample import blur, extent, reach, resample, triangles

f = v2.functional


def pictures(n: int = 3, height: int = 50, width: int = 70) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def resampled(images: Tensor, top: int, left: int, height: int, width: int, size: int) -> Tensor:
    """The same crop of all."""
    down = torch.tensor([[top, height / size, top, top + height]]).repeat(len(images), 1)
    across = torch.tensor([[left, width / size, left, left + width]]).repeat(len(images), 1)
    count = reach(np.array([height, width]) / size)
    pixels, source = images.permute(0, 2, 3, 1), torch.arange(len(images))
    lying = resample(pixels, source, triangles(down, size, count), triangles(across, size, count))
    return lying.permute(1, 0, 3, 2)


@pytest.mark.parametrize("size", [8, 17, 32, 33, 64, 100])
@pytest.mark.parametrize("box", [(0, 0, 50, 70), (7, 11, 32, 32), (20, 3, 9, 61), (49, 69, 1, 1), (0, 5, 50, 1)])
def test_crop_and_resize(box, size):
    images = pictures()
    theirs = f.resized_crop(images / 255, *box, [size, size], antialias=True)
    torch.testing.assert_close(resampled(images, *box, size), theirs, atol=1e-5, rtol=0)


def test_reach_covers_a_triangle():
    random = np.random.default_rng(0)
    for step in [1e-3, 0.5, 1, 1.5, 2, 2.5, *random.uniform(0.1, 9, 50)]:
        axis = torch.tensor([[random.uniform(0, 1), step, -1e6, 1e6]], dtype=torch.float32)
        wide = triangles(axis, 200, reach(np.array([step])) + 4)[1]
        assert wide[..., reach(np.array([step])) :].max() < 1e-5


@pytest.mark.parametrize("size, kernel", [(32, 3), (64, 7), (224, 23), (9, 9)])
def test_blur(size, kernel):
    x, sigma = pictures(4, size, size) / 255, torch.tensor([0.1, 0.5, 1.0, 2.0])
    ours = blur(x, sigma, extent(sigma.numpy(), kernel, size))
    for mine, image, s in zip(ours, x, sigma.tolist(), strict=True):
        torch.testing.assert_close(mine, f.gaussian_blur(image, [kernel, kernel], [s]), atol=1e-4, rtol=0)


def test_a_blur_is_its_own_whatever_stands_beside_it():
    x, sigma = pictures(3, 64, 64) / 255, torch.tensor([0.3, 1.0, 2.0])
    together = blur(x, sigma, extent(sigma.numpy(), 23, 64))
    for i in range(3):
        alone = blur(x[i : i + 1], sigma[i : i + 1], extent(sigma[i : i + 1].numpy(), 23, 64))
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=0)
