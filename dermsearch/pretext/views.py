"""The family of views that contrastive tasks share; what a task changes of it is all that it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dermsearch.data.views.augment import View

STRONG = (0.8, 0.8, 0.8, 0.2)  # of SimCLR
MILD = (0.4, 0.4, 0.4, 0.1)  # of MoCo v2
MILDER = (0.4, 0.4, 0.2, 0.1)  # of BYOL and DINO
FAMILY = View(224, ratio=(3 / 4, 4 / 3), flip=0.5, jitter=STRONG, jitter_p=0.8, gray=0.2, blur=0.5)


def contrastive(size: int, smallest: float, largest: float = 1.0, **changes: Any) -> View:
    """A crop of that side which takes such a share of the image: flip, strong jitter, grayscale and blur, or `changes`.

    Resized crop, flip, jitter in four of five, grayscale in one of five, blur in one of two.
    """
    return replace(FAMILY, size=size, scale=(smallest, largest), **changes)


def jitter(strength: float) -> tuple[float, float, float, float]:
    """SimCLR's, by its strength: 1 is the authors'."""
    brightness, contrast, saturation, hue = (strength * change for change in STRONG)
    return brightness, contrast, saturation, hue
