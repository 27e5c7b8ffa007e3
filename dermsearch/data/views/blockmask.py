"""Masks of blocks over a grid of patches, as BEiT and iBOT draw them.

They are drawn on the host: each block depends on those before it, which would be many small steps of a GPU, and the
host is to know how many patches are hidden. A thousand masks take 16 ms of a core, the step of a ViT-S on as many crops
more than a hundred of a GPU. What is sent is a byte for each patch and the places of those hidden, and nobody waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockMask:
    """Which patches of a picture are hidden: blocks, until their share is reached. Defaults are iBOT's."""

    height: int  # of the grid, in patches
    width: int
    chance: float = 0.5  # that a picture is masked at all
    share: tuple[float, float] = (0.1, 0.5)  # of the patches that are hidden, if any
    aspect: float = 0.3  # of a block, and up to one over it, its logarithm uniform

    numbers = 3  # random numbers that a mask takes: masked or not, how much of it, what seeds the blocks


TRIES = 10  # to place a block


def masks(blocks: BlockMask, u: np.ndarray) -> np.ndarray:
    """(n, BlockMask.numbers) uniforms -> bool (n, height, width), True where hidden; a mask depends on its row alone.

    Never more patches than the share says, and fewer where ten tries in a row place no block.
    """
    low, high = blocks.share
    targets = np.where(u[:, 0] < blocks.chance, low + u[:, 1] * (high - low), 0) * blocks.height * blocks.width
    out = np.zeros((len(u), blocks.height, blocks.width), bool)
    for mask, target, seed in zip(out, targets.astype(np.int64), u[:, 2], strict=True):
        if target:
            fill(mask, int(target), blocks, np.random.default_rng(int(seed * 2**53)))
    return out


def fill(mask: np.ndarray, target: int, blocks: BlockMask, random: np.random.Generator) -> None:
    """Add blocks until so many patches are hidden or none can be placed."""
    height, width = mask.shape
    least, narrow = (min(height, width) // 3) ** 2, math.log(blocks.aspect)  # a block's patches, unless fewer are left
    left, failed = target, 0
    while left > 0 and failed < TRIES:
        area = random.uniform(min(least, left), left)
        ratio = math.exp(random.uniform(narrow, -narrow))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        failed += 1
        if 0 < h <= height and 0 < w <= width:
            top, side = random.integers(height - h + 1), random.integers(width - w + 1)
            block = mask[top : top + h, side : side + w]
            new = h * w - int(np.count_nonzero(block))
            if 0 < new <= left:
                block[:] = True
                left, failed = left - new, 0
