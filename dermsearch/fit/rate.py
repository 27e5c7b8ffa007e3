"""The rate of a fit: a number, or several of which training cases kept aside choose one, {select: [0.0001, 0.001]}."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator

from dermsearch.settings import Settings

Number = Annotated[float, Field(gt=0, le=10)]
ASIDE = 0.2  # share of the training cases, by patient, that chooses


class Rates(Settings):
    """Several rates, each tried whole on four fifths of the training cases; the best by the last fifth is taken."""

    select: Annotated[tuple[Number, ...], Field(strict=False, min_length=2, max_length=20)]

    @field_validator("select")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must name each rate once")
        return value


def _kind(value: Any) -> str:
    """Which form it has; what stands in brackets is no part of the field's name in a message."""
    return "[rates]" if isinstance(value, dict | Rates) else "[one]"


Rate = Annotated[Annotated[Number, Tag("[one]")] | Annotated[Rates, Tag("[rates]")], Discriminator(_kind)]


def rates_of(config: Any) -> tuple[float, ...]:
    """What there is to choose from; nothing where the rate is given."""
    rate = getattr(config, "lr", None)
    return rate.select if isinstance(rate, Rates) else ()


def trainings(config: Any) -> float:
    """How often the training cases are trained on, choosing included."""
    return 1 + (1 - ASIDE) * len(rates_of(config))
