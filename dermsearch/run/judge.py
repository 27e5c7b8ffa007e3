"""Encoders from elsewhere under a study's protocols, without any pre-training: a study of its roots alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from dermsearch.errors import UserError
from dermsearch.models.hub import architecture_of
from dermsearch.study.config import Study
from dermsearch.study.load import load_study

KEY = re.compile(r"[0-9a-f]{32}")
ENDING = "-judged"


def judging(study: Study, weights: Sequence[str]) -> Study:
    """The study that judges these encoders, and random weights beside them, as `study` would."""
    given = list(dict.fromkeys(weights))
    raw = study.model_dump(mode="json")
    raw["name"] = study.name[: 64 - len(ENDING)] + ENDING
    starts = [None, *(start(study, each) for each in given)]
    raw["encoder"] |= {"name": study.encoder.names[0], "weights": {"choice": starts}}
    raw["curriculum"] = {"tasks": {}, "length": [0, 0]}
    raw["search"] = {"seeds": list(study.search.seeds)}
    return load_study(raw)


def start(study: Study, given: str) -> Any:
    """What the study begins with there: a stage of its store, or weights with the architecture that they are of."""
    if KEY.fullmatch(given):
        return {"store": study.compute.store, "key": given}
    of, equals, weights = given.partition("=")
    if not equals:
        if (Path(given) / "config.json").is_file():  # a folder, as its name alone
            given = str(Path(given).absolute())
        of, weights = architecture_of(given) or study.encoder.names[0], given
    elif not timm.is_model(of):
        raise UserError(f"{given}: must be WEIGHTS or NAME=WEIGHTS, and timm has no network '{of}'")
    return {"name": of, "weights": weights}
