"""A drawn thorax: how much of the rays each place holds back, from 0 (air) to about 1.6, and where the lungs are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dermsearch.data.drawn.lesion import smooth_noise

SOFT = 0.012  # how blurred an edge is, as a share of the picture's side
THORAX = 0.72  # width of the thorax, which a heart's is told by


@dataclass(frozen=True)
class Thorax:
    """What stays the same of a patient: shares of the picture's side, x to the right, y down."""

    half_width: float  # of the trunk
    lung: float  # half width of a lung at its widest
    apart: float  # of a lung's middle from the midline
    tall: float  # half height
    heart: float  # its width as a share of the thorax's
    spine: float
    ribs: float  # how many there are to the picture's height
    dome: float  # height of the diaphragm
    x: float
    y: float
    turn: float
    scale: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Thorax:
        """Somebody's."""
        u = rng.uniform
        return cls(
            half_width=u(0.44, 0.48),
            lung=u(0.150, 0.185),
            apart=u(0.195, 0.215),
            tall=u(0.30, 0.36),
            heart=u(0.38, 0.47),
            spine=u(0.050, 0.060),
            ribs=u(8.2, 9.4),
            dome=u(0.72, 0.80),
            x=u(-0.06, 0.06),
            y=u(-0.06, 0.06),
            turn=u(-0.09, 0.09),
            scale=u(0.88, 1.12),
        )


def draw_thorax(
    body: Thorax, findings: Collection[str], side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The attenuation, float32 (side, side), and the lungs' mask at half of that side, 0 or 255."""
    x, y = _places(body, side, rng)
    middle = x - 0.5
    trunk = _inside(body.half_width - np.abs(middle) + 0.06 * np.clip((y - 0.25) / 0.2, -1, 0), 2 * SOFT)
    sides = [_lung(body, x, y, sign) for sign in (-1, 1)]
    full = np.maximum(*(whole for whole, _ in sides))
    aired, gap, line = full, np.zeros_like(full), np.zeros_like(full)
    if "pneumothorax" in findings:
        sign = int(rng.integers(2))
        aired, gap, line = _collapsed(body, x, y, 2 * sign - 1, sides[sign][0], full, rng)
    ratio = rng.uniform(0.60, 0.70) if "cardiomegaly" in findings else body.heart + rng.uniform(-0.01, 0.01)
    heart = _heart(body, x, y, ratio)
    centre = _inside(1 - np.hypot(middle / body.spine, (y - 0.45) / 0.55), 0.15)
    map_ = 0.95 * trunk - 0.72 * full + 0.60 * centre + 0.55 * heart * (1 - 0.5 * centre)
    map_ += 0.13 * np.maximum(np.cos(2 * np.pi * body.ribs * (y + 0.55 * np.abs(middle) ** 1.7)), 0) * trunk
    for sign in (-1, 1):  # clavicles
        slope = 0.19 - 0.16 * (sign * middle - 0.05)
        map_ += 0.16 * np.exp(-(((y - slope) / 0.014) ** 2)) * _inside(sign * middle - 0.03, SOFT) * trunk
    map_ += _vessels(x, y, side, rng) * aired - 0.24 * gap + 0.34 * line
    if "pneumonia" in findings:
        map_ += _opacities(body, x, y, side, full * (1 - heart), rng)
    map_ += 0.03 * smooth_noise(rng, 5, side) * trunk
    lungs = (full * (1 - heart) * (1 - centre)).reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3)) > 0.5
    return np.maximum(map_, 0).astype(np.float32), lungs.astype(np.uint8) * 255


def _places(body: Thorax, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies in the patient, who never lies twice alike."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    turn = body.turn + rng.uniform(-0.05, 0.05)
    right, down = axis[None, :] - body.x - rng.uniform(-0.02, 0.02), axis[:, None] - body.y - rng.uniform(-0.02, 0.02)
    scale = body.scale * rng.uniform(0.97, 1.03)
    x = (np.cos(turn) * right + np.sin(turn) * down) / scale + 0.5
    y = (np.cos(turn) * down - np.sin(turn) * right) / scale + 0.5
    return x.astype(np.float32), y.astype(np.float32)


def _inside(depth: np.ndarray, soft: float) -> np.ndarray:
    """0 outside, 1 inside, with a soft edge; `depth` is how far inside."""
    return np.asarray(np.clip(depth / soft + 0.5, 0, 1), np.float32)


def _lung(
    body: Thorax, x: np.ndarray, y: np.ndarray, sign: int, drawn_in: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A lung, and how far from its edge a place is (1 on it); `drawn_in`: its outer edge and its top."""
    power, top = (2.6, 0.0) if sign < 0 else (2.8, 0.01)  # two lungs are never alike
    height = body.tall - drawn_in / 2
    up = np.clip((0.47 + top + body.tall - y) / (2 * body.tall), 0, 1)
    wide = (body.lung - drawn_in / 2) * (1 - 0.38 * up)
    edge = np.abs((x - 0.5 - sign * (body.apart - drawn_in / 2)) / wide) ** power
    edge = edge + np.abs((y - 0.47 - top - drawn_in / 2) / height) ** power
    dome = body.dome + (0.0 if sign < 0 else 0.03) + 2.2 * (np.abs(x - 0.5) - body.apart) ** 2
    whole = _inside((1 - edge) * body.lung / 2, SOFT) * _inside(dome - y, SOFT)
    return whole, edge


def _collapsed(
    body: Thorax,
    x: np.ndarray,
    y: np.ndarray,
    sign: int,
    whole: np.ndarray,
    full: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is left of the lungs with air in them, the gap beside one, and the bright line of its edge."""
    rest, edge = _lung(body, x, y, sign, rng.uniform(0.05, 0.10))
    high = _inside(rng.uniform(0.55, 0.72) - y, 0.1)
    gap = whole * (1 - rest) * high
    line = np.exp(-(((edge - 1) / 0.16) ** 2)) * whole * high * _inside(sign * (x - 0.5) - 0.10, 0.05)
    return full * (1 - gap), gap, line


def _heart(body: Thorax, x: np.ndarray, y: np.ndarray, ratio: float) -> np.ndarray:
    half = ratio * THORAX / 2
    across, down = (x - 0.5 - 0.32 * half) / half, (y - body.dome + 0.10) / (0.10 + 0.35 * half)
    return _inside((1 - np.hypot(across, down)) * half, SOFT)


def _vessels(x: np.ndarray, y: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Fine branches, thicker towards the hila."""
    fine = np.abs(smooth_noise(rng, 22, side))
    hila = np.exp(-(((np.abs(x - 0.5) - 0.10) / 0.07) ** 2 + ((y - 0.46) / 0.12) ** 2))
    return np.asarray(np.clip(fine - 0.8, 0, 1.2) * (0.05 + 0.22 * hila), np.float32)


def _opacities(
    body: Thorax, x: np.ndarray, y: np.ndarray, side: int, lungs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One to three clouds inside the lungs, uneven inside."""
    clouds = np.zeros_like(lungs)
    for _ in range(int(rng.integers(1, 4))):
        sign, radius = 2 * int(rng.integers(2)) - 1, rng.uniform(0.06, 0.11)
        across = 0.5 + sign * (body.apart + rng.uniform(-0.06, 0.09))
        down = rng.uniform(0.32, body.dome - 0.06)
        clouds = np.maximum(clouds, np.exp(-((x - across) ** 2 + (y - down) ** 2) / radius**2))
    speckle = 1 + 0.35 * np.clip(smooth_noise(rng, 26, side), -2, 2)
    return np.asarray(0.42 * clouds * speckle * lungs, np.float32)
