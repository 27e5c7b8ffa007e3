"""What a study searches beside the order: read from its file, drawn at random, and as features of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermsearch.errors import UserError
from dermsearch.study.wording import say

ROOT = "encoder"  # the dimension that says what a curriculum begins with, where a study has several roots


@dataclass(frozen=True)
class Dimension:
    """One scalar of one task that the search varies, or the root."""

    name: str  # "moco_v2.lr"
    kind: str  # choice | log | range
    values: tuple[Any, ...]  # the choices, or (low, high)

    @property
    def task(self) -> str:
        """The task that it belongs to."""
        return self.name.rpartition(".")[0]  # whose name may have dots

    def of(self, curriculum: Iterable[str]) -> bool:
        """Does a proposal of that curriculum have a value for it?"""
        return self.name == ROOT or self.task in curriculum

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values to check it by: a range's ends, and where only multiples will do, the number after its start."""
        inside = (self.values[0] + 1,) if self.kind != "choice" and self.integer else ()
        return (*self.values, *inside)

    @property
    def integer(self) -> bool:
        """Does a range run over whole numbers?"""
        return all(isinstance(v, int) for v in self.values)


def dimension(name: str, field: str, value: dict[str, Any], whole: bool) -> Dimension:
    """{choice: [...]}, {log: [low, high]} or {range: [low, high]} of a study file."""
    if len(value) != 1 or next(iter(value)) not in ("choice", "log", "range"):
        forms = "{choice: [...]}, {log: [low, high]} or {range: [low, high]}"
        forms += ", for a learning rate also {select: [...], epochs: 2}" * name.endswith(".lr")
        raise UserError(f"{field}: must be a value, {forms}, not {say(value)}")
    kind, values = next(iter(value.items()))
    if not isinstance(values, list) or not values:
        raise UserError(f"{field}.{kind}: must be a list of values, not {say(values)}")
    if kind == "choice":
        for v in values:
            if isinstance(v, (list, dict)) or v is None:
                raise UserError(f"{field}.choice: must hold numbers, words, true or false, not {say(v)}")
        if len({(type(v), v) for v in values}) != len(values):
            raise UserError(f"{field}.choice: must name each value once, not {say(values)}")
        return Dimension(name, kind, tuple(values))
    numbers = all(type(v) in (int, float) and -1e300 < v < 1e300 for v in values)
    if len(values) != 2 or not numbers or not values[0] < values[1]:
        raise UserError(f"{field}.{kind}: must be two numbers [low, high], low below high, not {say(values)}")
    if kind == "log" and values[0] <= 0:
        raise UserError(f"{field}.log: must start above 0, not at {say(values[0])}")
    if whole and not all(isinstance(v, int) for v in values):
        raise UserError(f"{field}.{kind}: must be two whole numbers, not {say(values)}")
    return Dimension(name, kind, tuple(values) if whole else tuple(float(v) for v in values))


def draw(d: Dimension, random: np.random.Generator) -> Any:
    """A random value of a dimension."""
    if d.kind == "choice":
        return d.values[random.integers(len(d.values))]
    low, high = d.values
    log = d.kind == "log"
    value = math.exp(random.uniform(math.log(low), math.log(high))) if log else random.uniform(low, high)
    return min(max(round(value) if d.integer else value, low), high)


def coded(d: Dimension, value: Any) -> np.ndarray:
    """A value as features: which choice it is, or its place and that squared on a range from -1 to 1."""
    if d.kind == "choice":
        return np.array([float(type(v) is type(value) and v == value) for v in d.values])
    low, high = map(math.log, d.values) if d.kind == "log" else d.values
    place = 2 * ((math.log(value) if d.kind == "log" else value) - low) / (high - low) - 1
    return np.array([place, place * place - 1 / 3])
