"""What frozen encoders say of a data set's cases: extracted once for all that judge on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import one_by_one
from dermsearch.data.views.augment import plain
from dermsearch.errors import UserError
from dermsearch.evaluate.base import Features, Images
from dermsearch.models.encoders import Encoders
from dermsearch.study.data import Data
from dermsearch.training.precision import autocast
from dermsearch.work.cases import look_of


@dataclass(frozen=True)
class Looked:
    """The cases of a data set that some draws of labels and a split need, seen by encoders."""

    features: Features
    images: Images

    def drawn(self, rows: np.ndarray) -> Looked:
        """The same with these rows of the store alone to learn from."""
        places = np.flatnonzero(np.isin(self.images.train, rows))
        features = self.features
        groups = features.train_groups
        features = replace(
            features,
            train=features.train[places],
            train_labels={name: classes[places] for name, classes in features.train_labels.items()},
            train_groups=None if groups is None else groups[places],
        )
        return Looked(features, replace(self.images, train=self.images.train[places]))


def look(
    encoders: Encoders,
    cases: CaseStore,
    data: Data,
    train: np.ndarray,
    split: str,
    device: torch.device,
    precision: str,
) -> Looked:
    """Features of these training rows and of a held-out split; several modalities side by side."""
    rows = {"train": whole(cases, data.modalities, train), split: whole(cases, data.modalities, cases.split(split))}
    for name, chosen in rows.items():
        if not len(chosen):
            raise UserError(f"data.modalities: no {name} case has images of {' and '.join(data.modalities)}")
    cast, seen = autocast(device, precision), look_of(data)
    found = {name: extract(encoders, cases, data, chosen, device, precision) for name, chosen in rows.items()}
    labels, groups = {name: cases.label(name) for name in cases.classes}, cases.groups()
    starts = range(0, found["train"].shape[1], encoders.dim)
    features = Features(
        train=found["train"],
        heldout=found[split],
        train_labels={name: classes[rows["train"]] for name, classes in labels.items()},
        heldout_labels={name: classes[rows[split]] for name, classes in labels.items()},
        classes=cases.classes,
        heldout_groups=groups[rows[split]],
        split=split,
        columns={m: slice(at, at + encoders.dim) for m, at in zip(data.modalities, starts, strict=True)},
        train_groups=groups[rows["train"]],
        named=cases.domain.named,
        heldout_cases=cases.strings("case")[rows[split]],
    )
    return Looked(features, Images(encoders, cases, rows["train"], rows[split], seen, device, cast, data.metadata))


@torch.no_grad()
def extract(
    encoders: Encoders,
    cases: CaseStore,
    data: Data,
    rows: np.ndarray,
    device: torch.device,
    precision: str,
    batch: int = 256,
) -> np.ndarray:
    """Features of rows of a store, (n, d) in float32, modality by modality; they leave the device all at once."""
    encoders.eval().to(memory_format=torch.channels_last)
    cast, seen = autocast(device, precision), look_of(data)
    columns = []
    for modality in data.modalities:
        parts = []
        for x in one_by_one(cases, modality, rows, seen, device, batch):
            with cast():
                parts.append(encoders(plain(x, seen.size), modality).float())
        columns.append(torch.cat(parts))
    return torch.cat(columns, 1).cpu().numpy()


def whole(cases: CaseStore, modalities: Iterable[str], rows: np.ndarray) -> np.ndarray:
    """Those of the rows that have an image of every modality: others cannot be judged."""
    return rows[np.all([cases.has(m)[rows] for m in modalities], axis=0)]
