"""How much of something lies inside a mask: of attention, and of what hiding a patch costs.

All are shares from 0 to 1, image by image. What has no attention at all is taken for even: its share is the mask's.
"""

from __future__ import annotations

import numpy as np

EVEN = 1e-12  # of attention in all: less is none


def inside(amount: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share (n,) of amounts (n, ...) that are not negative inside masks (n, ...), which may be soft."""
    axes = tuple(range(1, amount.ndim))
    total = amount.sum(axes)
    share = (amount * mask).sum(axes) / np.where(total > EVEN, total, 1)
    return np.asarray(np.where(total > EVEN, share, mask.mean(axes)))


def none_at_all(amount: np.ndarray) -> np.ndarray:
    """(n,) whether an image has no attention: a map that is nowhere positive."""
    return np.asarray(amount.reshape(len(amount), -1).sum(1) <= EVEN, float)


def peak_inside(amount: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n,) is the most of it inside? Of several places with the most, the share that is."""
    flat, kept = amount.reshape(len(amount), -1), mask.reshape(len(mask), -1)
    most = flat == flat.max(1, keepdims=True)
    return np.asarray((most & (kept > 0.5)).sum(1) / most.sum(1))


def patches(size: int, probes: int) -> list[tuple[slice, slice]]:
    """The image cut into probes x probes parts, row by row."""
    edges = np.rint(np.linspace(0, size, probes + 1)).astype(int).tolist()
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
    return [(down, across) for down in parts for across in parts]


def share_of_patches(mask: np.ndarray, parts: list[tuple[slice, slice]]) -> np.ndarray:
    """(n, patches): how much of each patch is inside."""
    return np.stack([mask[:, down, across].mean((1, 2)) for down, across in parts], 1)
