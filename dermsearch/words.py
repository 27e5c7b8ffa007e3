"""How messages count, and in what they tell times."""

from __future__ import annotations

from numbers import Integral

UNITS = ((2 * 3600.0, "hours", 3600.0), (120.0, "minutes", 60.0), (0.0, "seconds", 1.0))


def many(count: float, noun: str, several: str = "") -> str:
    """3 cases, 1 case, 0.5 GPUs; of a noun that has another plural, both."""
    number = f"{count:,}" if isinstance(count, Integral) else f"{count:g}"
    return f"{number} {noun if count == 1 else several or f'{noun}s'}"


def unit_of(longest: float) -> tuple[str, float]:
    """What so many seconds are told in, and how many of them that is."""
    return next((unit, of) for least, unit, of in UNITS if longest >= least)
