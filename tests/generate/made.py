"""A small store of radiographs, and a generator that learns it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch.data.domain import CHEST
from dermsearch.data.drawn.chest import chest
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import Split
from dermsearch.generate.base import MODELS
from dermsearch.generate.judge import Judging
from dermsearch.generate.train import Making

CPU = torch.device("cpu")
SIDE, CASES = 32, 60


def make_store(folder: Path, cases: int = CASES, place: str = "a") -> CaseStore:
    """Drawn radiographs of 32 pixels."""
    settings = {"source": "synthetic", "cases": cases, "domain": "chest", "place": place}
    drawn = chest(cases, SIDE, 0, place)
    return write_store(folder, drawn, Split(), CHEST.labels, settings, CHEST.columns, grey=CHEST.grey)


def making(epochs: int = 3, model: str = "gan", **more: Any) -> Making:
    """A generator of half the width."""
    config = MODELS.find(model).Config(width=0.25, noise=8, embedding=4).model_dump()
    told = {"modality": "xray", "label": "finding", "batch": 8, "every": 1, "looked": 24, "seed": 0}
    return Making(model=model, config=config, size=SIDE, epochs=epochs, **{**told, **more})


JUDGING = Judging("xray", SIDE, "test_resnet", epochs=1)


def brightness(images: np.ndarray) -> float:
    """A distance that needs no judge."""
    return float(abs(images.mean() - 100))
