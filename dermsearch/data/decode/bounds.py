"""What every decoder keeps to: the reasons to refuse an image, and levels of any range in 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

SMALLEST = 16  # pixels on the short side: less is an icon or a broken download
STRIP = 8  # times its short side: what is longer is no photograph
LARGEST = 100_000_000  # pixels in all: more is a decompression bomb


class BadImage(ValueError):
    """Why an image cannot be used."""


def check_size(width: int, height: int) -> None:
    """Refuse what only a broken file or a bomb has."""
    if width * height > LARGEST:
        raise BadImage(f"is {width} x {height} pixels, more than {LARGEST // 1_000_000} million")
    if min(width, height) < SMALLEST:
        raise BadImage(f"is {width} x {height} pixels, less than {SMALLEST} on a side")


def in_8_bits(values: np.ndarray) -> Image.Image:
    """Grey levels of any range: the darkest black, the brightest white."""
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise BadImage("holds values that are no numbers")
    values -= low
    values *= 255 / max(high - low, 1e-12)
    return Image.fromarray(values.round().astype(np.uint8))
