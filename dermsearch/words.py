"""How messages count."""

from __future__ import annotations

from numbers import Integral


def many(count: float, noun: str, several: str = "") -> str:
    """3 cases, 1 case, 0.5 GPUs; of a noun that has another plural, both."""
    number = f"{count:,}" if isinstance(count, Integral) else f"{count:g}"
    return f"{number} {noun if count == 1 else several or f'{noun}s'}"
