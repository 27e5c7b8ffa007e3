"""A case: one lesion at one visit, an image per modality, labels, metadata and a lesion mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

SPLITS = ("train", "val", "test")

Kind = Literal["number", "word"]
Level = Literal["lesion", "patient"]


@dataclass(frozen=True)
class Column:
    """A column of metadata that may be an input. Its last three fields are of the training cases of a store."""

    name: str
    kind: Kind
    level: Level  # of what it tells: of the lesion, or of the patient and so of all their lesions
    vocabulary: tuple[str, ...] = ()  # of words, sorted
    mean: float = 0.0  # of numbers
    spread: float = 1.0


def column_of(told: Mapping[str, Any]) -> Column:
    """A column as JSON tells it."""
    return Column(**{**told, "vocabulary": tuple(told["vocabulary"])})


def columns(level: Level, numbers: Iterable[str] = (), words: Iterable[str] = ()) -> tuple[Column, ...]:
    """Columns of one level by their names."""
    kinds: dict[str, Kind] = {**dict.fromkeys(numbers, "number"), **dict.fromkeys(words, "word")}
    return tuple(Column(name, kind, level) for name, kind in kinds.items())


# The names that all data sets share. What one means is never changed: the fingerprint of a store does not tell it.
METADATA = {
    column.name: column
    for column in (*columns("patient", ["age", "skin_type"], ["sex"]), *columns("lesion", words=["site", "elevation"]))
}


@dataclass
class Case:
    """One row of a case store. Images are uint8 (side, side, 3); `mask` is uint8 (side, side), 0 or 255."""

    case: str
    lesion: str
    patient: str
    images: dict[str, np.ndarray]
    labels: dict[str, int]  # label name -> class index
    metadata: dict[str, float | str | None] = field(default_factory=dict)
    mask: np.ndarray | None = None
