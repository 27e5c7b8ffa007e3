"""What a study's curricula may begin with, as the tree knows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """An architecture with its weights; of each, the tree has a root for every seed."""

    name: str  # where a study has several; else empty
    encoder: str
    weights: str = ""  # content hash of what they come from; random by seed if empty
