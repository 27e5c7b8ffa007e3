"""What an explanation knows of one curriculum."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

Replicate = tuple[str, int]  # root and seed


@dataclass(frozen=True)
class Observed:
    """A curriculum and its score in every seed (of every root), the mean over its settings."""

    tasks: tuple[str, ...]
    values: dict[Replicate, float]
    mark: str = ""  # C | AC | MC | ? | ""
    resampled: np.ndarray | None = field(default=None, compare=False)  # the score, on resampled patients
    error: float = 0.0  # its standard error over patients, where these were not drawn together for all

    @property
    def score(self) -> float:
        """The mean over the replicates."""
        return fmean(self.values.values())

    @property
    def kind(self) -> tuple[str, ...]:
        """Which tasks, whatever their order."""
        return tuple(sorted(self.tasks))
