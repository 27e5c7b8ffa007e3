"""Built-in data: drawn skin lesions with the labels, metadata and patients of a seven-point checklist set.

Every case comes from generators seeded by (seed, index), so case i is the same however many are asked for.
The drawings stand in for photographs in tests and tutorials; they say nothing about real lesions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dermsearch.data.case import Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.lesion import EXTENT, Lesion, draw_lesion, quantise, ramp, smooth_noise
from dermsearch.errors import UserError

# How often each diagnosis occurs, then the classes of each attribute within each diagnosis (rows in the
# order BCC, NEV, MEL, MISC, SK). Fitted so that the class frequencies are those of derm7pt's 1011 cases.
DIAGNOSIS = (0.042, 0.569, 0.249, 0.096, 0.044)
GIVEN_DIAGNOSIS: dict[str, tuple[tuple[float, ...], ...]] = {
    "pigment_network": (
        (0.96, 0.02, 0.02),
        (0.28, 0.55, 0.17),
        (0.42, 0.08, 0.50),
        (0.53, 0.43, 0.04),
        (0.95, 0.03, 0.02),
    ),
    "blue_whitish_veil": ((0.79, 0.21), (0.95, 0.05), (0.43, 0.57), (0.92, 0.08), (0.92, 0.08)),
    "vascular_structures": (
        (0.10, 0.85, 0.05),
        (0.94, 0.04, 0.02),
        (0.71, 0.08, 0.21),
        (0.56, 0.39, 0.05),
        (0.93, 0.04, 0.03),
    ),
    "pigmentation": (
        (0.75, 0.06, 0.19),
        (0.72, 0.11, 0.17),
        (0.20, 0.05, 0.75),
        (0.88, 0.07, 0.05),
        (0.21, 0.68, 0.11),
    ),
    "streaks": (
        (0.95, 0.02, 0.03),
        (0.67, 0.15, 0.18),
        (0.38, 0.06, 0.56),
        (0.95, 0.03, 0.02),
        (0.94, 0.03, 0.03),
    ),
    "dots_and_globules": (
        (0.55, 0.09, 0.36),
        (0.14, 0.46, 0.40),
        (0.14, 0.11, 0.75),
        (0.79, 0.12, 0.09),
        (0.24, 0.61, 0.15),
    ),
    "regression_structures": ((0.85, 0.15), (0.90, 0.10), (0.46, 0.54), (0.46, 0.54), (0.95, 0.05)),
}

# Metadata given the diagnosis, rows in the same order.
AGE = ((66.0, 11.0), (40.0, 14.0), (59.0, 15.0), (47.0, 15.0), (64.0, 11.0))  # mean, spread in years
MALE = (0.60, 0.45, 0.57, 0.48, 0.52)
SITES = ("back", "lower limbs", "abdomen", "upper limbs", "chest", "head neck", "acral")
SITE = (
    (0.18, 0.08, 0.05, 0.10, 0.12, 0.46, 0.01),
    (0.33, 0.20, 0.16, 0.11, 0.12, 0.03, 0.05),
    (0.34, 0.24, 0.06, 0.13, 0.11, 0.08, 0.04),
    (0.12, 0.36, 0.06, 0.26, 0.08, 0.08, 0.04),
    (0.34, 0.10, 0.14, 0.10, 0.16, 0.15, 0.01),
)
ELEVATIONS = ("flat", "palpable", "nodular")
ELEVATION = (
    (0.15, 0.40, 0.45),
    (0.55, 0.38, 0.07),
    (0.32, 0.45, 0.23),
    (0.20, 0.45, 0.35),
    (0.10, 0.70, 0.20),
)
MISSING = {"age": 0.05, "sex": 0.02, "site": 0.05, "skin_type": 0.15, "elevation": 0.08}

SKIN_TYPES = (0.10, 0.30, 0.34, 0.17, 0.07, 0.02)
SKIN = np.array([(243, 214, 198), (236, 200, 178), (224, 183, 155), (200, 154, 122), (160, 114, 84), (118, 80, 60)])

NEW_PATIENT = 1 / 1.3  # 1.3 lesions per patient on average
LABELS, PATIENT, PERSON, METADATA, SKIN_TONE, LESION, DERM, CLINIC = range(8)  # streams of random numbers by purpose


@dataclass(frozen=True)
class Practice:
    """What a set of cases may have of its own: who comes to it, and what becomes of a picture there."""

    diagnosis: tuple[float, ...] = DIAGNOSIS  # the share of each
    skin_types: tuple[float, ...] = SKIN_TYPES
    camera: Callable[[np.ndarray], np.ndarray] | None = None


USUAL = Practice()


def synthetic(cases: int, size: int | None, seed: int, practice: Practice = USUAL) -> Iterator[Case]:
    """Yields drawn cases, each with a dermoscopic and a clinical image `size` pixels wide; None: without images."""
    check_asked(cases, size, seed)
    return (draw_case(*who, size, seed, practice) for who in walk_patients(cases, seed))


def check_asked(cases: int, size: int | None, seed: int) -> None:
    """Refuse what cannot be drawn."""
    if cases < 1:
        raise UserError(f"synthetic data needs at least 1 case, not {cases}.")
    if size is not None and not 32 <= size <= 512:
        raise UserError(f"synthetic images are 32 to 512 pixels wide, not {size}.")
    if seed < 0:
        raise UserError(f"a seed is 0 or more, not {seed}.")


def walk_patients(cases: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """For each case its index, its patient's number and the index of that patient's first case."""
    patient, first = -1, 0
    for index in range(cases):
        if index == 0 or stream(seed, index, PATIENT).random() < NEW_PATIENT:
            patient, first = patient + 1, index
        yield index, patient, first


def draw_case(index: int, patient: int, first: int, size: int | None, seed: int, practice: Practice = USUAL) -> Case:
    """One case; its patient's age, sex and skin come from the patient's first case."""
    labels = draw_labels(seed, index, practice.diagnosis)
    person, skin_type = draw_person(seed, first, practice)
    rng = stream(seed, index, METADATA)
    relief = pick(rng, ELEVATION[labels["diagnosis"]])
    metadata: dict[str, float | str | None] = {
        **person,
        "site": SITES[pick(rng, SITE[labels["diagnosis"]])],
        "skin_type": float(skin_type),
        "elevation": ELEVATIONS[relief],
    }
    for name, share in MISSING.items():
        if rng.random() < share:
            metadata[name] = None
    case = Case(f"C{index:05d}", f"L{index:05d}", f"P{patient:05d}", {}, labels, metadata)
    if size is None:
        return case
    skin = SKIN[skin_type - 1] / 255 + stream(seed, first, SKIN_TONE).normal(0, 0.015, 3)
    lesion = draw_lesion(labels, skin, 2 * size, stream(seed, index, LESION))
    derm, mask = photograph_derm(lesion, skin, size, stream(seed, index, DERM))
    clinic = photograph_clinic(lesion, skin, relief, size, stream(seed, index, CLINIC))
    images = {"derm": derm, "clinic": clinic}
    if practice.camera is not None:
        images = {name: practice.camera(image) for name, image in images.items()}
    return replace(case, images=images, mask=mask)


def stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    """The random numbers of one purpose in one case."""
    return np.random.default_rng((seed, index, purpose))


def pick(rng: np.random.Generator, chances: tuple[float, ...]) -> int:
    """An index drawn with the given chances."""
    return min(int(np.searchsorted(np.cumsum(chances), rng.random(), side="right")), len(chances) - 1)


def draw_labels(seed: int, index: int, shares: tuple[float, ...] = DIAGNOSIS) -> dict[str, int]:
    """The diagnosis, then each attribute given the diagnosis."""
    rng = stream(seed, index, LABELS)
    diagnosis = pick(rng, shares)
    labels = {"diagnosis": diagnosis}
    labels |= {name: pick(rng, table[diagnosis]) for name, table in GIVEN_DIAGNOSIS.items()}
    return {name: labels[name] for name in SEVEN_POINT}


def draw_person(seed: int, first: int, practice: Practice = USUAL) -> tuple[dict[str, float | str], int]:
    """A patient's age and sex, given the diagnosis of the first lesion, and the skin type."""
    diagnosis = draw_labels(seed, first, practice.diagnosis)["diagnosis"]
    rng = stream(seed, first, PERSON)
    mean, spread = AGE[diagnosis]
    age = float(np.clip(round(rng.normal(mean, spread)), 3, 95))
    sex = "male" if rng.random() < MALE[diagnosis] else "female"
    return {"age": age, "sex": sex}, 1 + pick(rng, practice.skin_types)


def photograph_derm(
    lesion: Lesion,
    skin: np.ndarray,
    size: int,
    rng: np.random.Generator,
    radius: tuple[float, float] = (0.30, 0.41),
    texture: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:
    """The dermoscopic image and the lesion's mask in it: close, even light, in part a dark round frame.

    `radius` is the lesion's in the picture, the least and the most share of the side; `texture` that of the skin.
    """
    rgba, body = aim(lesion, rng.uniform(*radius), 0.09, size, rng)
    scene = compose(rgba, skin, texture, rng)
    if rng.random() < 0.3:
        draw_hairs(scene, int(rng.integers(2, 7)), rng)
    if rng.random() < 0.12:
        draw_ruler(scene, rng)
    image = develop(scene, size, rng, blur=rng.uniform(0.002, 0.006), shading=0.05)
    if rng.random() < 0.35:
        image *= round_frame(size, rng)[..., None]
    image += rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(0.004, 0.014))
    mask = np.asarray(body.reduce(2)) >= 128
    return quantise(image), mask.astype(np.uint8) * 255


def photograph_clinic(
    lesion: Lesion,
    skin: np.ndarray,
    relief: int,
    size: int,
    rng: np.random.Generator,
    radius: tuple[float, float] = (0.20, 0.28),
) -> np.ndarray:
    """The clinical image: from further away, softer, under uneven light that shows how raised the lesion is."""
    rgba, body = aim(lesion, rng.uniform(*radius), 0.1, size, rng)
    scene = compose(rgba, skin, 0.035, rng)
    if rng.random() < 0.4:
        draw_hairs(scene, int(rng.integers(3, 10)), rng)
    image = develop(scene, size, rng, blur=rng.uniform(0.005, 0.009), shading=0.12)
    if relief:
        image += relief * emboss(body, size, rng.uniform(0, math.tau))[..., None]
    image = 0.86 * image + 0.07  # surface reflection lowers the contrast that a dermoscope keeps
    image += rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(rng.uniform(0.006, 0.02))
    return quantise(image)


def aim(
    lesion: Lesion, radius: float, shift: float, size: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The lesion as seen by a camera at twice the final size: its radius and place are shares of the side."""
    side = 2 * size
    unit = lesion.rgba.width / (2 * EXTENT)  # canvas pixels per lesion radius
    step = unit / (radius * side)  # canvas pixels per camera pixel
    turn, mirror = rng.uniform(0, math.tau), rng.choice([-1, 1])
    a, b = step * math.cos(turn) * mirror, step * math.sin(turn)
    d, e = -step * math.sin(turn) * mirror, step * math.cos(turn)
    x, y = side * (0.5 + rng.uniform(-shift, shift, 2))
    middle = lesion.rgba.width / 2
    frame = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
    transform, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    rgba = lesion.rgba.transform((side, side), transform, frame, bilinear)
    return rgba, lesion.body.transform((side, side), transform, frame, bilinear)


def compose(rgba: Image.Image, skin: np.ndarray, texture: float, rng: np.random.Generator) -> Image.Image:
    """The lesion on skin with pores and uneven colour."""
    side = rgba.width
    tone = 1 + texture * (smooth_noise(rng, 4, side) + smooth_noise(rng, 24, side))
    scene = Image.fromarray(quantise(skin.astype(np.float32) * tone[..., None]))
    scene.paste(rgba, mask=rgba.getchannel("A"))
    return scene


def develop(scene: Image.Image, size: int, rng: np.random.Generator, blur: float, shading: float) -> np.ndarray:
    """The exposed picture (0 to 1): focus, slanted light, brightness, white balance and a colour cast.

    The blue cast falls on lesions with and without a veil, so blueness alone gives no veil away.
    """
    image = np.asarray(scene.reduce(2).filter(ImageFilter.GaussianBlur(blur * size)), np.float32) / 255
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    turn = rng.uniform(0, math.tau)
    slant = math.cos(turn) * axis[None, :] + math.sin(turn) * axis[:, None]
    light = np.exp(rng.normal(0, 0.12) + rng.normal(0, shading) * slant).astype(np.float32)
    balance = np.exp(rng.normal(0, 0.04, 3))
    if rng.random() < 0.35:
        balance *= np.array([0.86, 0.97, 1.10]) ** rng.uniform(0.3, 1.2)
    return np.clip(image, 0, 1) ** np.float32(rng.uniform(0.85, 1.15)) * light[..., None] * balance.astype(np.float32)


def round_frame(size: int, rng: np.random.Generator) -> np.ndarray:
    """The dark edge of a dermoscope's round field of view."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = rng.normal(0, 0.04, 2)
    distance = np.hypot(axis[None, :] - np.float32(x), axis[:, None] - np.float32(y))
    return ramp((np.float32(rng.uniform(1.0, 1.2)) - distance) / 0.08 + 0.5) * 0.97 + 0.03


def emboss(body: Image.Image, size: int, turn: float) -> np.ndarray:
    """Light on the side of a raised lesion that faces the lamp, shade on the other."""
    small = body.reduce(2).filter(ImageFilter.GaussianBlur(0.03 * size))
    down, right = np.gradient(np.asarray(small, np.float32) / 255)
    return np.asarray((math.cos(turn) * right + math.sin(turn) * down) * (0.016 * size), np.float32)


def draw_hairs(scene: Image.Image, count: int, rng: np.random.Generator) -> None:
    """Curved dark hairs that run roughly one way."""
    pen, side = ImageDraw.Draw(scene), scene.width
    comb, shade = rng.uniform(0, math.tau), int(rng.integers(25, 75))
    for _ in range(count):
        place, angle = rng.uniform(0, 1, 2), comb + rng.normal(0, 0.4)
        points = [tuple(place * side)]
        bend = rng.normal(0, 0.12)
        for _ in range(6):
            place = place + rng.uniform(0.06, 0.09) * np.array([math.cos(angle), math.sin(angle)])
            angle += bend
            points.append(tuple(place * side))
        pen.line(points, fill=(shade + 15, shade, shade - 5), width=max(1, round(0.008 * side)))


def draw_ruler(scene: Image.Image, rng: np.random.Generator) -> None:
    """Tick marks along one edge."""
    pen, side = ImageDraw.Draw(scene), scene.width
    gap, along = rng.uniform(0.06, 0.09) * side, rng.random() < 0.5
    for k in range(int(side / gap) + 1):
        place, length = k * gap, (0.07 if k % 5 == 0 else 0.04) * side
        line = (place, 0, place, length) if along else (0, place, length, place)
        pen.line(line, fill=(30, 28, 28), width=max(1, side // 96))
