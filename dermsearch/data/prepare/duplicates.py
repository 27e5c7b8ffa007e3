"""The same image twice: the same file, or so nearly the same picture that only its compression differs.

Near-identical is decided in two steps: a 64-bit perceptual hash proposes pairs, a thumbnail decides. Dermoscopic
images are all dark blobs on pale skin, so a hash alone would call many strangers twins.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

EDGE = 16
THUMB = EDGE * EDGE  # bytes of a grey thumbnail
BITS = 64
DISTANCE = 3  # bits of the hash that may differ: four bands of 16 bits, so one of them is equal
LEVELS = 1.5  # mean difference of the thumbnails, of 255
MARGIN = 32  # of a frequency over the median: a soft picture's many faint ones would turn with every compression
BLOCK = 1 << 22  # pairs of hashes compared at once

_k = np.arange(EDGE)
_DCT = np.cos(np.pi / EDGE * (_k[None, :] + 0.5) * _k[:, None])[:8]  # (8, EDGE): the lowest frequencies


def thumbnail(pixels: np.ndarray) -> bytes:
    """uint8 (h, w, 3) -> EDGE x EDGE grey levels."""
    grey = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    return grey.reduce(max(1, min(grey.size) // (2 * EDGE))).resize((EDGE, EDGE), Image.Resampling.BOX).tobytes()


def perceptual_hash(thumbs: np.ndarray) -> np.ndarray:
    """uint8 (n, THUMB) -> uint64 (n,): which low frequencies are well above their median."""
    found = np.empty(len(thumbs), np.uint64)
    weights = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    for start in range(0, len(thumbs), 65536):
        x = thumbs[start : start + 65536].reshape(-1, EDGE, EDGE).astype(np.float64)
        low = (_DCT @ x @ _DCT.T).reshape(len(x), BITS)
        above = low > np.median(low[:, 1:], axis=1, keepdims=True) + MARGIN
        found[start : start + 65536] = np.where(above, weights, np.uint64(0)).sum(1)
    return found


def identical(files: np.ndarray) -> list[tuple[int, int]]:
    """(first, again) for every row whose file's hash occurred before. `files` is uint8 (n, 16)."""
    first: dict[bytes, int] = {}
    pairs = []
    for row, name in enumerate(map(bytes, files)):
        if row != first.setdefault(name, row):
            pairs.append((first[name], row))
    return pairs


def near_identical(thumbs: np.ndarray) -> list[tuple[int, int]]:
    """(first, again) for every row that looks like an earlier one. `thumbs` is uint8 (n, THUMB)."""
    codes = perceptual_hash(thumbs)
    pairs = close(codes, codes)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    levels = thumbs.astype(np.int16)
    first: dict[int, int] = {}
    for i, j in pairs.tolist():  # in order: the earliest lookalike comes first
        if j not in first and np.abs(levels[i] - levels[j]).mean() <= LEVELS:
            first[j] = i
    return sorted((i, j) for j, i in first.items())


def close(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(pairs, 2): which hashes differ in at most DISTANCE bits, so that one of their four bands is equal."""
    found = [np.empty((0, 2), np.int64)]
    for band in range(4):
        keys, others = ((x >> np.uint64(16 * band)) & np.uint64(0xFFFF) for x in (one, two))
        order = np.argsort(others, kind="stable")
        low, high = (np.searchsorted(others[order], keys, side) for side in ("left", "right"))
        ends = np.cumsum(high - low)
        start = 0
        while start < len(one):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK, "right")))
            count = (high - low)[start:stop]
            i = np.repeat(np.arange(start, stop), count)
            at = np.arange(len(i)) - np.repeat(ends[start:stop] - count - before, count)
            j = order[at + np.repeat(low[start:stop], count)]
            near = np.bitwise_count(one[i] ^ two[j]) <= DISTANCE
            found.append(np.stack([i[near], j[near]], 1))
            start = stop
    return np.unique(np.concatenate(found), axis=0)
