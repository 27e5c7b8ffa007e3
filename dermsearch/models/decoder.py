"""A small U-Net decoder over the maps of any backbone that makes them in several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermsearch.models.encoders import backbone


@cache
def map_sizes(encoder: str) -> int:
    """In how many sizes this model of timm makes maps: 1 for a plain ViT, 0 where they cannot be had."""
    with torch.device("meta"):
        made = backbone(encoder)
    if not hasattr(made, "forward_intermediates"):
        return 0
    return len({stage["reduction"] for stage in getattr(made, "feature_info", [])})


class Decoder(nn.Module):
    """Maps of several sizes -> one of the size of the image.

    From the smallest map on: enlarge to the size of the next, lay it beside, convolve twice. Widths are 256 at
    the first such step and half as many at each further one, at least 16.
    """

    def __init__(self, channels: Sequence[int], out: int) -> None:
        super().__init__()
        deep, *skips = reversed(channels)
        widths = [deep, *(max(16, 256 >> i) for i in range(len(skips) + 1))]
        self.blocks = nn.ModuleList(
            nn.Sequential(*convolution(before + skip, after), *convolution(after, after))
            for (before, after), skip in zip(pairwise(widths), [*skips, 0], strict=True)
        )
        self.last = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], size: int) -> Tensor:
        """Maps from the largest to the smallest -> (b, out, size, size), without activation."""
        x, *skips = reversed(maps)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            # By the nearest: on a GPU the gradient of smoother enlargements adds up in an order of its own.
            x = F.interpolate(x, size=skip.shape[2:] if skip is not None else (size, size))
            x = block(x if skip is None else torch.cat([x, skip], 1))
        return self.last(x)


def convolution(before: int, after: int) -> list[nn.Module]:
    """3 x 3, BatchNorm, ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
