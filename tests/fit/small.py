"""A small store of labelled cases that show what they are, the fits in small settings, and how these are trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from pretext.tiny import CPU, Kept
from torch import Tensor

from dermsearch.data.case import Case
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.fit import base as fits
from dermsearch.models.artifact import PREDICTOR, Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.nature import TARGET
from dermsearch.pretext.base import Target
from dermsearch.training.fits import predict_fit, train_fit
from dermsearch.training.stage import Trained

# Every fit joins here, with the settings that suit 40 images in batches of 16.
SHORT: dict[str, Any] = {"epochs": 3, "batch": 16, "lr": 1e-3}
ADAPTATIONS = ("source_only", "adabn", "our_alignment", "dcan", "dann")
FITS: dict[str, dict[str, Any]] = {
    "finetune": SHORT,
    "baseline": SHORT,
    "inception_combined": {**SHORT, "metadata": ()},
    "hccnn": SHORT,
    "giin": SHORT,
    "amfam": SHORT,
    "fusion_m4net": {**SHORT, "aside": 0.15},
    "fusion_m4net_svm": {**SHORT, "metadata": (), "aside": 0.15},
    **{name: {**SHORT, "epochs": 2, "adapt_epochs": 1} for name in ADAPTATIONS},
}
PAIR = ("derm", "clinic")

CLASSES = {"diagnosis": ("a", "b", "c", "d"), "veil": ("absent", "present"), "streaks": ("no", "yes")}
CASES, TRAIN, SIZE = 64, 40, 32
LOOK = Look(SIZE)
ROWS, HELDOUT = np.arange(TRAIN), np.arange(TRAIN, CASES)


def labels_of(case: int) -> dict[str, int]:
    """Three diagnoses of four, a veil that is unknown of every seventh case, streaks of none."""
    return {"diagnosis": case % 3, "veil": -1 if case % 7 == 3 else case // 3 % 2, "streaks": -1}


def make_store(
    folder: Path,
    labels: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
    missing: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> CaseStore:
    """64 cases of noise: a square has the colour of the diagnosis and a veil a stripe, in both modalities."""
    rng, cases = np.random.default_rng(0), []
    for i in range(CASES):
        images = rng.integers(60, 200, (2, SIZE, SIZE, 3), dtype=np.uint8)
        images[:, 8:20, 8:20, i % 3] = 250
        images[:, 24:30] = 20 if i // 3 % 2 else 128
        truth = {**labels_of(i), **labels.get(i, {})}
        shown = {m: x for m, x in zip(("derm", "clinic"), images, strict=True) if i not in missing.get(m, ())}
        cases.append(Case(f"c{i}", f"l{i}", f"p{i // 2}", shown, {k: v for k, v in truth.items() if v >= 0}))
    splits = {c.case: "train" if i < TRAIN else "val" for i, c in enumerate(cases)}
    return write_store(folder, cases, splits, CLASSES, {"source": "test"})


def modalities(name: str) -> tuple[str, ...]:
    """What a fit looks at: a system at two images of a case."""
    return PAIR if "pairs" in fits.FITS.find(name).nature.needs else ("derm",)


def encoders(modalities: tuple[str, ...] = ("derm",), branches: str = "shared") -> Encoders:
    """Fresh ones, always the same."""
    return Encoders.random("test_resnet", modalities, branches, 3)


def train(
    name: str,
    store: CaseStore,
    made: Encoders | None = None,
    artifact: Artifact = MappingProxyType({}),
    rows: np.ndarray = ROWS,
    kept: Any = None,
    report: Any = None,
    seed: int = 7,
    precision: str = "fp32",
    **config: Any,
) -> Trained:
    """The fit in its small settings."""
    settings = {**FITS[name], **config}
    where = kept or Kept(), report or (lambda row: None), CPU, precision, LOOK
    made = made or (encoders(PAIR, "separate") if modalities(name) == PAIR else encoders())
    shown = HELDOUT[np.any([store.has(m)[HELDOUT] for m in made.modalities], axis=0)]
    target = Target(store, shown, LOOK) if TARGET in fits.FITS.find(name).nature.needs else None
    return train_fit(name, settings, seed, artifact, made, store, rows, *where, target=target)


def predict(part: Part | Trained, store: CaseStore, rows: np.ndarray = HELDOUT) -> dict[str, np.ndarray]:
    """What it says of held-out cases."""
    part = part.parts[PREDICTOR] if isinstance(part, Trained) else part
    return predict_fit(part, store, rows, LOOK, CPU, "fp32")


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """To the bit: arrays or tensors by name."""
    same = [np.array_equal(np.asarray(one[k]), np.asarray(other[k])) for k in one]
    return one.keys() == other.keys() and all(same)


def accuracy(predicted: Mapping[str, np.ndarray], label: str, store: CaseStore) -> float:
    """Of held-out cases whose label is known."""
    truth = store.label(label)[HELDOUT]
    return float((predicted[label].argmax(1) == truth)[truth >= 0].mean())


def state(made: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of all weights."""
    return {name: w.clone() for name, w in made.state_dict().items()}
