"""Draws one skin lesion, attribute by attribute, on a canvas in the lesion's own coordinates.

The canvas is what both cameras in `skin.py` photograph, so a case's two images show one lesion.
Lengths are in lesion radii, so the same lesion looks alike at every image size. Colours, darkness, shape
and place are drawn independently of the labels: only the structure of an attribute gives it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

EXTENT = 1.5  # half the canvas's side, in lesion radii: streaks reach beyond the border

# How strongly a structure of melanin absorbs red, green and blue.
BROWN = np.array([0.62, 0.78, 0.86], np.float32)
BLACK = np.array([0.86, 0.90, 0.90], np.float32)

# Mean colours of lesions, relative to the skin's: tan, brown, reddish, greyish, blue-grey.
TINTS = np.array([[0.86, 0.70, 0.55], [0.76, 0.58, 0.46], [0.92, 0.64, 0.60], [0.72, 0.68, 0.66], [0.62, 0.68, 0.78]])
LUMA = np.array([0.30, 0.59, 0.11], np.float32)

Draw = Callable[[ImageDraw.ImageDraw], None]


@dataclass
class Lesion:
    """A drawn lesion: colour and opacity (uint8 RGBA), and where its body is (uint8, 0 to 255)."""

    rgba: Image.Image
    body: Image.Image


class Canvas:
    """The drawing surface: pixel coordinates, the lesion's border and the colour painted so far."""

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.side = side
        self.unit = side / (2 * EXTENT)  # pixels per lesion radius
        axis = ((np.arange(side, dtype=np.float32) + 0.5) / self.unit) - EXTENT
        self.x, self.y = axis[None, :], axis[:, None]
        self.stretch = float(rng.uniform(0.8, 1.0))
        self.waves = [(k, float(rng.normal(0, 0.10 / (k - 1))), float(rng.uniform(0, math.tau))) for k in (2, 3, 5)]
        angle = np.arctan2(self.y / self.stretch, self.x)
        radius = np.hypot(self.x, self.y / self.stretch)
        turns = np.linspace(-math.pi, math.pi, 181)
        border = np.interp(angle.ravel(), turns, self.border(turns)).reshape(side, side)
        self.reach = (radius / border).astype(np.float32)  # 0 at the centre, 1 on the border
        self.alpha = np.zeros((side, side), np.float32)
        self.rgb = np.zeros((side, side, 3), np.float32)

    def border(self, angle: float | np.ndarray) -> float | np.ndarray:
        """The border's distance from the centre in a direction (before the stretch)."""
        return 1.0 + sum(a * np.cos(k * angle + phase) for k, a, phase in self.waves)

    def at(self, reach: float, angle: float) -> tuple[float, float]:
        """The place at a fraction of the way from the centre to the border."""
        r = reach * float(self.border(angle))
        return r * math.cos(angle), r * math.sin(angle) * self.stretch

    def spot(self, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
        """A place drawn evenly over the ring between two fractions of the way to the border."""
        reach = math.sqrt(self.rng.uniform(least**2, most**2))
        return self.at(reach, self.rng.uniform(0, math.tau))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        return (x + EXTENT) * self.unit, (y + EXTENT) * self.unit

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of unit spread with about `cells` bumps across the canvas."""
        return smooth_noise(self.rng, cells, self.side)

    def blob(self, centre: tuple[float, float], radius: float, soft: float, rough: float = 0.15) -> np.ndarray:
        """A patch with an uneven edge: 1 inside, 0 outside, `soft` wide in between."""
        distance = np.hypot(self.x - centre[0], self.y - centre[1])
        return ramp((radius - distance + rough * radius * self.noise(9)) / soft)

    def strokes(self, draw: Draw, blur: float = 0.0) -> np.ndarray:
        """What `draw` draws in white on black, as a layer from 0 to 1; `blur` is in lesion radii."""
        image = Image.new("L", (self.side, self.side))
        draw(ImageDraw.Draw(image))
        if blur * self.unit > 0.6:  # smaller blurs are left to the camera
            image = image.filter(ImageFilter.GaussianBlur(blur * self.unit))
        return np.asarray(image, np.float32) / 255

    def absorb(self, layer: np.ndarray, absorption: np.ndarray, strength: float) -> None:
        """Darkens the canvas under a layer, each colour by how much the structure absorbs of it."""
        self.rgb *= 1 - layer[..., None] * (absorption * np.float32(strength))

    def cover(self, layer: np.ndarray, colour: np.ndarray, strength: float) -> None:
        """Paints a colour over the canvas under a layer."""
        self.rgb += (colour.astype(np.float32) - self.rgb) * (layer * np.float32(strength))[..., None]

    def dot(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], radius: float) -> None:
        (x, y), r = self.pixel(*place), max(0.6, radius * self.unit)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def line(self, draw: ImageDraw.ImageDraw, places: list[tuple[float, float]], width: float) -> None:
        points = [self.pixel(*place) for place in places]
        draw.line(points, fill=255, width=max(1, round(width * self.unit)), joint="curve")


def draw_lesion(labels: dict[str, int], skin: np.ndarray, side: int, rng: np.random.Generator) -> Lesion:
    """The lesion with the labelled attributes, on skin of a colour (0 to 1), on a canvas `side` pixels wide."""
    canvas = Canvas(side, rng)
    soft = float(rng.uniform(0.04, 0.14))  # how sharp the border is
    body = ramp((1 - canvas.reach) / soft + 0.5)
    canvas.alpha = body * np.float32(rng.uniform(0.85, 1.0))
    paint_base(canvas, skin)
    paint_pigmentation(canvas, labels["pigmentation"])
    paint_network(canvas, labels["pigment_network"])
    paint_dots(canvas, labels["dots_and_globules"])
    paint_streaks(canvas, labels["streaks"])
    if labels["regression_structures"]:
        paint_regression(canvas, skin)
    if labels["blue_whitish_veil"]:
        paint_veil(canvas, skin)
    paint_vessels(canvas, labels["vascular_structures"])
    even_out(canvas, body, skin)
    rgba = np.dstack([canvas.rgb, canvas.alpha])
    return Lesion(Image.fromarray(quantise(rgba), "RGBA"), Image.fromarray(quantise(body), "L"))


def paint_base(canvas: Canvas, skin: np.ndarray) -> None:
    """The lesion's ground: mottled brown that drifts, in brightness and in hue, from the centre to the rim."""
    rng = canvas.rng
    shade = 1 + 0.05 * canvas.noise(5) + 0.03 * canvas.noise(14)
    outward = np.minimum(canvas.reach, 1.3)[..., None] - np.float32(0.6)
    drift = rng.normal(0, 0.16) + rng.normal(0, 0.12) * np.array([-1, 0, 1]) + rng.normal(0, 0.04, 3)
    ground = (skin * [0.78, 0.62, 0.52]).astype(np.float32)
    canvas.rgb = ground * shade[..., None] * np.exp(outward * drift.astype(np.float32))


def even_out(canvas: Canvas, body: np.ndarray, skin: np.ndarray) -> None:
    """Sets the lesion's mean colour to one drawn without regard to the labels.

    Without this a veil would show as a bluer picture and a blotch as a darker one, and a classifier would
    need no structure. As it is, lesions are tan, brown, reddish or blue-grey whatever they contain.
    """
    rng = canvas.rng
    tint = rng.dirichlet(np.full(len(TINTS), 0.7)) @ TINTS
    wanted = skin * tint * (rng.uniform(0.45, 0.75) / (tint @ LUMA))
    weights = (body / body.sum()).ravel()
    canvas.rgb *= np.clip(wanted / (weights @ canvas.rgb.reshape(-1, 3)), 0.5, 1.8).astype(np.float32)


def paint_pigmentation(canvas: Canvas, kind: int) -> None:
    """Regular: an even dark area, at the centre or in a ring. Irregular: jagged dark blotches to one side."""
    rng = canvas.rng
    if kind == 1:
        layer = ramp((rng.uniform(0.58, 0.68) - canvas.reach) / 0.1 + 0.5)
        if rng.random() < 0.5:  # as often a ring, so that the lesion's centre is no darker on average
            layer = (1 - layer) * ramp((1.0 - canvas.reach) / 0.06 + 0.5)
        canvas.absorb(layer, BROWN, rng.uniform(0.55, 0.7))
    elif kind == 2:
        side = rng.uniform(0, math.tau)
        layer = np.zeros_like(canvas.reach)
        for _ in range(int(rng.integers(2, 5))):
            place = canvas.at(rng.uniform(0.25, 0.9), side + rng.normal(0, 0.7))
            layer = np.maximum(layer, canvas.blob(place, rng.uniform(0.16, 0.36), 0.05, rough=0.35))
        layer = layer * ramp((1.0 - canvas.reach) / 0.05 + 0.5)
        canvas.absorb(layer, BLACK, rng.uniform(0.7, 0.85))


def paint_network(canvas: Canvas, kind: int) -> None:
    """Typical: a fine even brown mesh that fades at the border. Atypical: thick, dark, warped, broken off."""
    rng = canvas.rng
    if kind == 0:
        return
    typical = kind == 1
    period = rng.uniform(0.19, 0.23) if typical else rng.uniform(0.32, 0.42)
    warp = np.float32((0.03 if typical else 0.13) * (2 * math.pi / period))
    first, second = warp * canvas.noise(8), warp * canvas.noise(8)
    bends = (first, second, -first - second)
    turn = rng.uniform(0, math.tau)
    lattice = np.zeros_like(canvas.reach)
    for k in range(3):  # three plane waves a third of a turn apart make a honeycomb
        angle = turn + k * math.tau / 3
        wave = np.float32(math.tau / period)
        across = wave * (canvas.x * np.float32(math.cos(angle)) + canvas.y * np.float32(math.sin(angle)))
        lattice += np.cos(across + bends[k])
    if typical:
        mesh = ramp((0.0 - lattice) / 0.7) * ramp((1.02 - canvas.reach) / 0.3)
        canvas.absorb(mesh, BROWN, rng.uniform(0.6, 0.72))
    else:
        patches = ramp((canvas.noise(5) + 0.9) / 0.3)
        mesh = ramp((0.3 - lattice) / 0.7) * patches * ramp((1.03 - canvas.reach) / 0.06)
        canvas.absorb(mesh, BLACK, rng.uniform(0.68, 0.8))


def paint_dots(canvas: Canvas, kind: int) -> None:
    """Regular: equal globules evenly spaced. Irregular: uneven sizes, clustered off centre."""
    rng = canvas.rng
    if kind == 0:
        return
    if kind == 1:
        gap, radius, turn = rng.uniform(0.34, 0.40), rng.uniform(0.075, 0.09), rng.uniform(0, math.tau)
        row, column = np.divmod(np.arange(121), 11)
        grid = np.stack([column - 5 + 0.5 * (row % 2), (row - 5) * 0.87], 1) * gap
        grid = grid + rng.normal(0, 0.02, grid.shape)
        grid = grid @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        spots = [((x, y), radius) for x, y in grid if inside(canvas, x, y, 0.9)]
    else:
        heart = canvas.at(rng.uniform(0.3, 0.6), rng.uniform(0, math.tau))
        near = [heart + rng.normal(0, 0.28, 2) for _ in range(int(rng.integers(9, 16)))]
        far = [np.array(canvas.spot(0.2, 1.0)) for _ in range(int(rng.integers(4, 9)))]
        spots = [
            ((float(x), float(y)), 0.035 + 0.13 * rng.beta(1, 2.2))
            for x, y in near + far
            if inside(canvas, float(x), float(y), 1.05)
        ]

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for place, radius in spots:
            canvas.dot(pen, place, radius)

    canvas.absorb(canvas.strokes(draw, 0.012), BROWN if kind == 1 else BLACK, 0.8)


def paint_streaks(canvas: Canvas, kind: int) -> None:
    """Radial lines across the border. Regular: all the way round. Irregular: on one sector, unequal."""
    rng = canvas.rng
    if kind == 0:
        return
    start = rng.uniform(0, math.tau)
    if kind == 1:
        count = int(rng.integers(20, 27))
        lines = [(start + math.tau * k / count, 0.84, 1.24 + rng.normal(0, 0.02), 0.055) for k in range(count)]
    else:
        count, span = int(rng.integers(6, 10)), rng.uniform(1.0, 1.9)
        lines = [
            (start + span * k / count + rng.normal(0, 0.05), 0.75, rng.uniform(1.1, 1.36), rng.uniform(0.05, 0.09))
            for k in range(count)
        ]

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for angle, inner, outer, width in lines:
            canvas.line(pen, [canvas.at(inner, angle), canvas.at(outer, angle)], width)
            if kind == 2:
                canvas.dot(pen, canvas.at(outer, angle), width * 0.6)

    layer = canvas.strokes(draw, 0.012)
    canvas.absorb(layer, BLACK, 0.75)
    canvas.alpha = np.maximum(canvas.alpha, layer)


def paint_regression(canvas: Canvas, skin: np.ndarray) -> None:
    """A scar-like area lighter than the skin around, peppered with blue-grey grains."""
    rng = canvas.rng
    place = canvas.spot(0.5, 0.87)  # off centre: a centre lighter on average would be a cue
    radius = rng.uniform(0.45, 0.58)
    area = canvas.blob(place, radius, 0.06, rough=0.2) * ramp((1.0 - canvas.reach) / 0.08 + 0.5)
    canvas.cover(area, skin * 0.6 + skin.mean() * 0.4 + 0.15, rng.uniform(0.85, 0.95))
    grains = [place + rng.normal(0, 0.5 * radius, 2) for _ in range(int(rng.integers(28, 42)))]

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for x, y in grains:
            canvas.dot(pen, (float(x), float(y)), float(rng.uniform(0.026, 0.042)))

    canvas.cover(canvas.strokes(draw, 0.008) * area, float(skin.mean()) * np.array([0.42, 0.47, 0.56]), 0.9)


def paint_veil(canvas: Canvas, skin: np.ndarray) -> None:
    """A structureless blue area under a whitish haze that hides what lies below it."""
    rng = canvas.rng
    area = canvas.blob(canvas.spot(0.45, 0.85), rng.uniform(0.46, 0.62), 0.2, rough=0.2)
    area = area * ramp((1.0 - canvas.reach) / 0.12 + 0.3)
    haze = ramp(0.3 + 0.3 * canvas.noise(6))[..., None] * np.float32(0.35)
    hue = np.array([0.68, 0.88, 1.14], np.float32) + haze * np.array([0.9, 0.75, 0.5], np.float32)
    blue = np.float32((skin @ LUMA) * rng.uniform(0.58, 0.72)) * hue
    canvas.cover(area, blue, rng.uniform(0.78, 0.9))


def paint_vessels(canvas: Canvas, kind: int) -> None:
    """Regular: branching trees or commas. Irregular: red dots and short crooked lines."""
    rng = canvas.rng
    if kind == 0:
        return
    kinds = {1: (tree, commas), 2: (red_dots, crooked)}[kind]
    style = kinds[int(rng.random() < 0.35)]
    layer = canvas.strokes(lambda pen: style(canvas, pen), 0.01)
    blood = np.array([0.70, 0.06, 0.10]) * rng.uniform(0.85, 1.15)
    canvas.cover(layer * ramp((1.1 - canvas.reach) / 0.1), blood, rng.uniform(0.88, 0.97))


def tree(canvas: Canvas, pen: ImageDraw.ImageDraw) -> None:
    """Arborising vessels: stems that come in from the border and split into thinner branches."""
    rng = canvas.rng

    def grow(x: float, y: float, angle: float, length: float, width: float) -> None:
        places = [(x, y)]
        for _ in range(4):
            angle += rng.normal(0, 0.2)
            x, y = x + math.cos(angle) * length / 4, y + math.sin(angle) * length / 4
            places.append((x, y))
        canvas.line(pen, places, width)
        if width > 0.03:
            for turn in (-0.55, 0.5):
                grow(x, y, angle + turn + rng.normal(0, 0.15), length * 0.7, width * 0.65)

    first = rng.uniform(0, math.tau)
    for k in range(int(rng.integers(2, 4))):
        angle = first + k * 2.2
        x, y = canvas.at(0.95, angle)
        grow(x, y, angle + math.pi + rng.normal(0, 0.35), 0.5, 0.085)


def commas(canvas: Canvas, pen: ImageDraw.ImageDraw) -> None:
    """Comma vessels: thick short arcs, evenly strewn."""
    rng = canvas.rng
    for _ in range(int(rng.integers(8, 12))):
        x, y = canvas.spot(0.2, 0.95)
        angle, bend = rng.uniform(0, math.tau), rng.choice([-1, 1]) * 0.55
        places = [(x, y)]
        for _ in range(5):
            x, y = x + 0.075 * math.cos(angle), y + 0.075 * math.sin(angle)
            angle += bend
            places.append((x, y))
        canvas.line(pen, places, 0.075)


def red_dots(canvas: Canvas, pen: ImageDraw.ImageDraw) -> None:
    """Dotted vessels: many pinpoint red dots."""
    for _ in range(int(canvas.rng.integers(34, 50))):
        canvas.dot(pen, canvas.spot(0.15, 1.0), float(canvas.rng.uniform(0.04, 0.055)))


def crooked(canvas: Canvas, pen: ImageDraw.ImageDraw) -> None:
    """Linear irregular vessels: short zigzags in all directions, with dots between."""
    rng = canvas.rng
    for _ in range(int(rng.integers(7, 11))):
        (x, y), angle = canvas.spot(0.15, 0.9), rng.uniform(0, math.tau)
        places = [(x, y)]
        for k in range(4):
            turn = angle + (0.8 if k % 2 else -0.8)
            x, y = x + 0.1 * math.cos(turn), y + 0.1 * math.sin(turn)
            places.append((x, y))
        canvas.line(pen, places, 0.055)
    for _ in range(12):
        canvas.dot(pen, canvas.spot(0, 0.9), 0.045)


def inside(canvas: Canvas, x: float, y: float, reach: float) -> bool:
    """Whether a place lies within a fraction of the way to the border."""
    angle = math.atan2(y / canvas.stretch, x)
    return math.hypot(x, y / canvas.stretch) < reach * float(canvas.border(angle))


def smooth_noise(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """A (side, side) field of smooth noise with zero mean and about unit spread."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) * np.float32(1.4)


def ramp(t: np.ndarray) -> np.ndarray:
    """A smooth step from 0 (t <= 0) to 1 (t >= 1)."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def quantise(values: np.ndarray) -> np.ndarray:
    """0 to 1 as 0 to 255."""
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
