"""How boxes out of many pictures are made on a GPU: all samples alike and in their order, whatever is done to them.

The host reads nothing that was drawn, and neither sorts nor sends: bounds are those of what a view declares.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.views.chunks import unchanged
from dermsearch.data.views.pictures import Pictures
from dermsearch.data.views.resample import reach, resample, triangles

MEMORY = 1 << 28  # numbers under way at once
Change = Callable[[Tensor, slice], Tensor]


def sample(pictures: Pictures, axes: Tensor, sides: tuple[int, int], step: float, change: Change = unchanged) -> Tensor:
    """(n, e, 8) axes of e boxes per picture -> normalised float (n, e, 3, side, side).

    `step` is the longest that an axis may have. `change` is given planes (3, b, side, side), lying, columns first, and
    which part of all n e boxes they are of; it may change their side from the first to the second.
    """
    pixels = pictures.pixels.permute(0, 2, 3, 1)
    n, boxes, _ = axes.shape
    axes, count = axes.flatten(0, 1).float(), reach(np.array(step))
    out = torch.empty(n, boxes, 3, sides[1], sides[1], device=pixels.device)
    most = max(1, MEMORY // (3 * max(boxes * sides[0] ** 2, pixels.shape[1] * pixels.shape[2])))
    for start in range(0, n, most):
        part = slice(start, min(start + most, n))
        boxed = slice(start * boxes, part.stop * boxes)
        rows = torch.arange(part.stop - start, device=pixels.device).repeat_interleave(boxes)
        down, across = (triangles(a, sides[0], count) for a in axes[boxed].split(4, 1))
        x = change(resample(pixels[part], rows, down, across), boxed)
        x = x if len(x) == 3 else x.repeat(3, 1, 1, 1)  # grey is one plane until here
        for plane, mean, deviation in zip(x, pictures.mean, pictures.std, strict=True):
            plane.sub_(mean).div_(deviation)
        out[part] = x.permute(1, 0, 3, 2).unflatten(0, (-1, boxes))
    return out
