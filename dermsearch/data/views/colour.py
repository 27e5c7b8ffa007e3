"""Changes of colour, as torchvision v2 makes them of float pictures, in place on planes (3, b, pixels) in [0, 1].

Red, green and blue are each one run of memory, so that a step is one pass; factors are one per sample, (b,). Grey
pictures may be one plane: three that are equal would come out equal, and as it does, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def luma(x: Tensor) -> Tensor:
    """(3 or 1, b, ...) -> the grey of its colours, (b, ...)."""
    red, green, blue = x.expand(3, *x.shape[1:])
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def gray(x: Tensor, share: Tensor | None = None) -> None:
    """Grayscale; or of each sample, (b,), 1 or 0 of it."""
    if share is None:
        x.copy_(luma(x))
    else:
        x.lerp_(luma(x), share[:, None])


def solarize(x: Tensor, threshold: float | Tensor) -> None:
    """Invert what is as bright as the threshold or brighter; it may be a sample's own, (b, 1)."""
    bright = torch.ge(x, threshold).to(x.dtype)
    x.add_(bright.mul_(torch.rsub(x, 1).sub_(x)))  # x + 1 - 2 x


def brightness(x: Tensor, factor: Tensor) -> None:
    """0 is black, 1 as it was."""
    x.mul_(factor[:, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> None:
    """0 is the picture's mean grey, 1 as it was."""
    flat = x.flatten(2)
    # Sums are cut into parts by how many there are: always as many, for the same bits.
    mean = luma((flat if len(flat) == 3 else flat.repeat(3, 1, 1)).mean(2))  # (b,)
    x.mul_(factor[:, None]).add_(((1 - factor) * mean)[:, None]).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> None:
    """0 is grayscale, 1 as it was."""
    grey = luma(x)
    x.mul_(factor[:, None]).add_(grey.mul_((1 - factor)[:, None])).clamp_(0, 1)


def hue(x: Tensor, shift: Tensor) -> None:
    """Turn the hue of HSV by a share of the circle.

    In sixths of the circle and with colours stretched to [0, 1], red is 1 up to a distance of 1 from hue 0 and falls to
    0 at 2; green is the same about 2, blue about 4. Hence 1 - red + green + blue is the distance of a hue from 0, on
    the side of green or of blue, and a shifted hue's colours are three ramps: no case by case, and no division by zero.
    """
    if len(x) == 1:  # grey has no hue
        x.clamp_(0, 1)
        return
    red, green, blue = x
    least = torch.minimum(red, green)
    torch.minimum(least, blue, out=least)
    span = torch.maximum(red, green)
    torch.maximum(span, blue, out=span).sub_(least)
    away = torch.add(green, blue).sub_(red).sub_(least).add_(span)  # (1 - red + green + blue) span
    away.div_(span.clamp(min=1e-6)).mul_(1 / 6)
    torch.copysign(away, green - blue, out=away)
    centre = torch.arange(3, device=x.device)[:, None] / 3
    # Two turns more, so that `frac` sees no negative number, and half a turn, so that it is 1/2 at the centre.
    torch.add(away, (shift - centre + 2.5)[:, :, None], out=x)
    x.frac_().sub_(0.5).abs_().clamp_(1 / 6, 1 / 3)
    x.mul_(span.mul_(-6)).add_(least.sub_(span, alpha=1 / 3)).clamp_(0, 1)  # least + span (2 - 6 distance)
