"""Content addresses: a key is a hash of everything that decides a result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dermsearch.study.data import Data


def digest(*parts: Any) -> str:
    """blake2b over canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def view(data: Data, fingerprint: str) -> dict[str, Any]:
    """What is seen of a data set: its cases, and how they are looked at."""
    return {
        "cases": fingerprint,
        "modalities": data.modalities,
        "size": data.size,
        "border": data.border,
        "normalise": data.normalise,
    }


def root_key(data: Data, fingerprint: str, encoder: str, branches: str, seed: int, weights: str = "") -> str:
    """The root of a seed's curricula: weights of this architecture, to see these cases.

    `weights` is the content hash of what they come from, wherever it lies; they are random if empty.
    """
    return digest(
        "root" if branches == "shared" else "root, alike in every branch",
        {**view(data, fingerprint), "transductive": data.transductive},
        {"name": encoder, "branches": branches, "weights": weights},
        seed,
    )


def stage_key(parent: str, task: str, version: int, settings: dict[str, Any], precision: str, seed: int) -> str:
    """A stage: its parent's key carries data, encoder and all that came before."""
    return digest("stage", parent, task, version, settings, precision, seed)


def segment_key(stage: str, until: int) -> str:
    """The first so many epochs of a stage, which itself has one key however it is trained."""
    return digest("segment", stage, until)


def fit_key(
    artifact: str,
    name: str,
    version: int,
    config: dict[str, Any],
    seen: dict[str, Any],
    labelled: str,
    draw: int,
    precision: str,
    seed: int,
) -> str:
    """A predictor: what it starts from, and the labelled cases (`view`) that it is trained on."""
    return digest("fit", artifact, name, version, config, seen, labelled, draw, precision, seed)


def judgement_key(
    of: str,
    protocol: str,
    version: int,
    config: dict[str, Any],
    seen: dict[str, Any],
    labelled: str,
    draw: int,
    split: str,
    precision: str,
    seed: int,
) -> str:
    """What a protocol says of an artifact or a predictor, on one split of a data set, from one draw of its labels."""
    return digest("judgement", of, protocol, version, config, seen, labelled, draw, split, precision, seed)
