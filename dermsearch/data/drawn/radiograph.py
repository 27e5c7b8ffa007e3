"""From what a body holds back to a radiograph, as one hospital takes and prints it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dermsearch.data.drawn.lesion import quantise

Range = tuple[float, float]
LETTERS = {  # strokes in a square
    "L": [((0.15, 0.0), (0.15, 1.0), (0.85, 1.0))],
    "R": [((0.15, 1.0), (0.15, 0.0), (0.75, 0.0), (0.75, 0.5), (0.15, 0.5)), ((0.45, 0.5), (0.85, 1.0))],
}
CORNER = {"L": (0.86, 0.05), "R": (0.04, 0.05)}  # the letter's upper left corner
LETTER = 0.10  # its size


@dataclass(frozen=True)
class Hospital:
    """How pictures are taken; what is a range is drawn for each."""

    view: str
    gamma: Range
    contrast: Range
    lift: Range
    blur: Range  # in pixels of a picture 64 wide
    noise: Range
    letter: str
    scatter: float = 0.0
    frame: Range = (0.0, 0.0)  # of the collimator, as a share of the side
    wires: int = 0  # at most
    pacemaker: float = 0.0


def exposed(body: np.ndarray, hospital: Hospital, letter: bool, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8, at half of the side that the body was drawn at."""
    from scipy.ndimage import gaussian_filter  # imported here: whoever only lists domains need not wait

    side = len(body)
    metal = Image.new("L", (side, side))
    pen = ImageDraw.Draw(metal)
    for _ in range(int(rng.integers(hospital.wires + 1))):
        _wire(pen, side, rng)
    if rng.random() < hospital.pacemaker:
        _pacemaker(pen, side, rng)
    x = body / 1.6 + 0.5 * np.asarray(metal, np.float32) / 255
    x = x.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3))
    size, u = side // 2, rng.uniform
    if hospital.scatter:
        x = x + hospital.scatter * gaussian_filter(x, 0.12 * size)
    x = gaussian_filter(x, u(*hospital.blur) * size / 64)
    x = np.clip(x, 0, 1) ** u(*hospital.gamma) * u(*hospital.contrast) + u(*hospital.lift)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x = x * np.exp(u(-0.10, 0.10) * axis[None, :] + u(-0.10, 0.10) * axis[:, None] + u(-0.08, 0.08))
    x = x + rng.standard_normal((size, size), dtype=np.float32) * u(*hospital.noise)
    frame = rng.uniform(*hospital.frame, 4) * size
    left, top, right, bottom = np.round(frame).astype(int)
    framed = np.zeros_like(x)
    framed[top : size - bottom, left : size - right] = x[top : size - bottom, left : size - right]
    shift = rng.uniform(-0.015, 0.015, 2)
    return quantise(np.maximum(framed, _letter(hospital.letter, size, shift)) if letter else framed)


def _letter(name: str, size: int, shift: np.ndarray) -> np.ndarray:
    """The burnt-in letter: white, printed after all else."""
    image = Image.new("L", (4 * size, 4 * size))
    pen, (x, y) = ImageDraw.Draw(image), np.array(CORNER[name]) + shift
    for stroke in LETTERS[name]:
        points = [((x + LETTER * a) * 4 * size, (y + LETTER * b) * 4 * size) for a, b in stroke]
        pen.line(points, fill=255, width=max(4, round(0.10 * size)), joint="curve")
    return np.asarray(image.reduce(4), np.float32) / 255


def _wire(pen: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A lead across the chest, with its electrode."""
    place, angle, points = rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0, 2 * np.pi), []
    for _ in range(9):
        points.append(tuple(place.tolist()))
        angle += rng.normal(0, 0.35)
        place = place + 0.09 * side * np.array([np.cos(angle), np.sin(angle)])
    pen.line(points, fill=150, width=max(1, round(0.010 * side)))
    (x, y), r = points[0], 0.016 * side
    pen.ellipse((x - r, y - r, x + r, y + r), fill=230)


def _pacemaker(pen: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A box under the left clavicle, and its lead to the heart."""
    x, y = (rng.uniform(0.66, 0.74) * side, rng.uniform(0.22, 0.28) * side)
    pen.line([(x, y), (0.56 * side, 0.34 * side), (0.56 * side, 0.62 * side)], fill=140, width=max(1, side // 90))
    pen.rounded_rectangle((x, y, x + 0.10 * side, y + 0.08 * side), 0.02 * side, fill=240)
