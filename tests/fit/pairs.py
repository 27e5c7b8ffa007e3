"""Built-in cases with all labels of the seven-point checklist and metadata, and systems over tiny encoders."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretext.tiny import CPU

from dermsearch.data.domain import SEVEN_POINT, SKIN
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.fit.base import FITS
from dermsearch.fit.heads import counts_of
from dermsearch.fit.system import Shape, Sight, System
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, Material, Setting

SYSTEMS = ("baseline", "inception_combined", "hccnn", "giin", "amfam", "fusion_m4net", "fusion_m4net_svm")
CLASSES = tuple(len(names) for names in SEVEN_POINT.values())
CASES, SIDE = 32, 32
TINY = Shape((32, 32, 48, 192, 96), (2, 4, 8, 16, 32), 96, CLASSES, 12)  # of timm's test_resnet
RESNET50 = Shape((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32), 2048, CLASSES, 14)
RESNET18 = Shape((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), 512, CLASSES, 14)


def make_store(folder: Path, cases: int = CASES) -> CaseStore:
    """Drawn lesions: all of them to learn from, but the last eight."""
    made = list(synthetic(cases + 8, SIDE, 0))
    splits = {c.case: "train" if i < cases else "val" for i, c in enumerate(made)}
    return write_store(folder, made, splits, SEVEN_POINT, {"source": "test"}, columns=SKIN.columns)


def system(name: str, store: CaseStore, **config: Any) -> System:
    """One over encoders with random weights, in training mode."""
    fit = FITS.find(name)
    rows, sizes = np.arange(CASES), {k: len(names) for k, names in store.classes.items()}
    labels = {k: store.label(k)[rows] for k in sizes}
    words = {c.name: len(c.vocabulary) for c in store.columns.values() if c.kind == "word"}
    told = Setting(
        CASES, SIDE, 96, 16, 0, "test_resnet", steps=100, classes=sizes, modalities=("derm", "clinic"),
        counts=counts_of(labels, sizes), words=words,
    )  # fmt: skip
    made = Encoders.random("test_resnet", ("derm", "clinic"), "separate", 3)
    torch.manual_seed(0)
    return fit(made, fit.Config(**config), told)


def batches(module: System, store: CaseStore, units: np.ndarray, side: int = SIDE) -> dict[str, Batch]:
    """Cases of the store as a step's batch."""
    pools = module.pools(Material(module.encoders, store, np.arange(len(store)), CPU, Look(side)))
    return {m: Batch(units, pool, side, 0, 0, 0) for m, pool in pools.items()}


def sight(shape: Shape, seed: int, cases: int = 4, side: int = 64) -> Sight:
    """What an encoder might make of random images."""
    g = torch.Generator().manual_seed(seed)
    maps = [
        torch.rand(cases, width, side // stride, side // stride, generator=g)
        for width, stride in zip(shape.maps, shape.strides, strict=True)
    ]
    pixels = torch.rand(cases, 3, side, side, generator=g)
    return Sight(pixels, maps, maps[-1].mean((2, 3)), torch.ones(cases, dtype=torch.bool))
