"""The values of what a study searches beside the order: drawn at random, and as features of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dermsearch.search.space import Dimension


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
