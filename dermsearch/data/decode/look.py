"""A picture's look: a small grey thumbnail of the whole original, by which copies are known again.

It does not depend on what is kept of the picture: not on side, fit or border.
"""

from __future__ import annotations

import cv2
import numpy as np

LOOKS = 2  # the version of a look; raise it when thumbnails change
EDGE = 32
THUMB = EDGE * EDGE  # bytes of a look


def thumbnail(pixels: np.ndarray) -> bytes:
    """uint8 (h, w, 3) -> EDGE x EDGE grey levels."""
    return cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (EDGE, EDGE), interpolation=cv2.INTER_AREA).tobytes()
