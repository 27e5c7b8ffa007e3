"""Drawn skin as other hospitals see it: another camera, other patients, other diagnoses. A variant is settings alone.

What is drawn under a camera is the same lesion pixel by pixel, so the pictures of two cameras can be told apart and
compared. Where the shares of diagnoses differ, cases of one seed are others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from dermsearch.data.case import Case
from dermsearch.data.domain import Domain
from dermsearch.data.drawn.lesion import quantise
from dermsearch.data.drawn.skin import DIAGNOSIS, SKIN_TYPES, Practice, synthetic
from dermsearch.errors import UserError, nearest
from dermsearch.study.data import Camera, Variant

LABEL = "diagnosis"


def varied(domain: Domain, variant: Variant) -> Domain:
    """The domain with its cases drawn by these settings; a diagnosis that does not occur is no class of it."""
    names = domain.labels[LABEL]
    weights = dict.fromkeys(names, 1.0) if variant.classes is None else variant.classes
    for name in sorted(weights.keys() - set(names)):
        raise UserError(f"data.variant.classes: '{name}' is no {LABEL} of built-in cases; {nearest(name, names)}")
    kept = tuple(name for name in names if weights.get(name))
    practice = Practice(
        DIAGNOSIS if variant.classes is None else shares(tuple(weights.get(name, 0.0) for name in names)),
        SKIN_TYPES if variant.skin is None else shares(variant.skin),
        None if variant.camera == Camera() else partial(photographed, camera=variant.camera),
    )
    classes = {names.index(name): number for number, name in enumerate(kept)}
    return replace(
        domain, labels={**domain.labels, LABEL: kept}, drawer=partial(draw, practice=practice, classes=classes)
    )


def shares(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Weights as parts of one."""
    return tuple(weight / sum(weights) for weight in weights)


def draw(cases: int, size: int | None, seed: int, practice: Practice, classes: dict[int, int]) -> Iterator[Case]:
    """Yields the cases, with the number that each diagnosis has among those that occur."""
    return (
        replace(case, labels={**case.labels, LABEL: classes[case.labels[LABEL]]})
        for case in synthetic(cases, size, seed, practice)
    )


def photographed(picture: np.ndarray, camera: Camera) -> np.ndarray:
    """A picture as this camera takes it: its sharpness first, then its colours, then its light."""
    image, side = Image.fromarray(picture), len(picture)
    if camera.pixels is not None and camera.pixels < side:
        coarse = image.resize((camera.pixels, camera.pixels), Image.Resampling.BOX)
        image = coarse.resize((side, side), Image.Resampling.BICUBIC)
    if camera.blur:
        image = image.filter(ImageFilter.GaussianBlur(camera.blur * side))
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    corner = (axis[None, :] ** 2 + axis[:, None] ** 2) / 2  # 0 in the middle, 1 in a corner
    light = (1 - np.float32(camera.vignette) * corner)[..., None] * np.array(camera.cast, np.float32)
    return quantise(np.asarray(image, np.float32) / 255 * light)
