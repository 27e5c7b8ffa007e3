"""Content addresses: a key is a hash of everything that decides a result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dermsearch.study.config import Data, Encoder


def digest(*parts: Any) -> str:
    """blake2b over canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def root_key(data: Data, fingerprint: str, encoder: Encoder, seed: int, weights: str = "") -> str:
    """The root of a seed's curricula: weights of this architecture, to see these cases.

    `weights` is the content hash of the file that they come from, wherever it lies; they are random if empty.
    """
    return digest(
        "root" if encoder.branches == "shared" else "root, alike in every branch",
        {
            "cases": fingerprint,
            "modalities": data.modalities,
            "size": data.size,
            "transductive": data.transductive,
            "border": data.border,
            "normalise": data.normalise,
        },
        {**encoder.model_dump(mode="json"), "weights": weights},
        seed,
    )


def stage_key(parent: str, task: str, version: int, settings: dict[str, Any], precision: str, seed: int) -> str:
    """A stage: its parent's key carries data, encoder and all that came before."""
    return digest("stage", parent, task, version, settings, precision, seed)


def segment_key(stage: str, until: int) -> str:
    """The first so many epochs of a stage, which itself has one key however it is trained."""
    return digest("segment", stage, until)


def score_key(
    stage: str, protocol: str, version: int, config: dict[str, Any], labelled: str, split: str, precision: str
) -> str:
    """A judgement of a stage's encoders, by a protocol that learnt from so many labels."""
    return digest("score", stage, protocol, version, config, labelled, split, precision)
