"""Colour changes against torchvision's of float pictures: equal within 1e-5, a four-hundredth of a level of 255."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from dermsearch.data.views import colour

f = v2.functional
ATOL = 1e-5


def pictures(n: int = 4, side: int = 40) -> Tensor:
    """Noise over all colours, and in the corners the extremes: black, white, greys, pure and nearly grey colours."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, side, side, generator=generator)
    x[:, :, :2, :2], x[:, :, :2, 2:4], x[:, :, :2, 4:6] = 0, 1, 0.5
    for i in range(7):  # every pure colour, then a shade off grey
        pure = torch.tensor([i + 1 & 1, i + 1 >> 1 & 1, i + 1 >> 2 & 1]).float()
        x[:, :, 2, i], x[:, :, 3, i] = pure, 0.5 + pure * 1e-4
    return x


def changed(change, x: Tensor, *given: Tensor | float) -> Tensor:
    """By planes, as the module has it."""
    planes = x.transpose(0, 1).flatten(2).contiguous()
    change(planes, *given)
    return planes.reshape(x.transpose(0, 1).shape).transpose(0, 1)


@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("first", [0.0, 0.2, 1.0, 1.8])
def test_factors(what, first):
    x, factors = pictures(), torch.tensor([first, 0.5, 1.3, 2.0])
    theirs = torch.stack([getattr(f, f"adjust_{what}")(i, float(k)) for i, k in zip(x, factors, strict=True)])
    torch.testing.assert_close(changed(getattr(colour, what), x, factors), theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.33, -0.1, 0.0, 1e-3, 0.1, 0.2, 1 / 3, 0.5])
def test_hue(shift):
    x, shifts = pictures(), torch.tensor([shift, -shift, shift / 2, 0.05])
    theirs = torch.stack([f.adjust_hue(i, float(k)) for i, k in zip(x, shifts, strict=True)])
    torch.testing.assert_close(changed(colour.hue, x, shifts), theirs, atol=ATOL, rtol=0)


def test_hue_leaves_grey_alone():
    grey = torch.linspace(0, 1, 101).reshape(1, 1, 101, 1).expand(1, 3, 101, 2)
    torch.testing.assert_close(changed(colour.hue, grey, torch.tensor([0.4])), grey, atol=1e-6, rtol=0)


def test_one_after_the_other():
    x, k = pictures(), torch.tensor([1.7, 0.3, 1.1, 0.8])
    ours = x
    for change, factor in ((colour.brightness, k), (colour.contrast, k), (colour.saturation, k), (colour.hue, k / 4)):
        ours = changed(change, ours, factor)
    for mine, image, factor in zip(ours, x, k.tolist(), strict=True):
        theirs = f.adjust_contrast(f.adjust_brightness(image, factor), factor)
        theirs = f.adjust_hue(f.adjust_saturation(theirs, factor), factor / 4)
        torch.testing.assert_close(mine, theirs, atol=ATOL, rtol=0)


def test_gray_and_solarize():
    x = (pictures() * 255).round() / 255
    torch.testing.assert_close(changed(colour.gray, x), f.rgb_to_grayscale(x, 3), atol=ATOL, rtol=0)
    for threshold in (0.0, 100 / 255, 128 / 255, 1.0):
        torch.testing.assert_close(changed(colour.solarize, x, threshold), f.solarize(x, threshold), atol=ATOL, rtol=0)
