"""The images that a branch of the encoders trains on: one modality of the training cases, or all pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.store import CaseStore


class CasePool:
    """Unit u is modality u % M of training case u // M, so a pooled set mixes modalities evenly."""

    def __init__(self, store: CaseStore, modalities: Sequence[str], rows: np.ndarray, device: torch.device) -> None:
        self.images = [store.pixels(m) for m in modalities]
        self.rows, self.device = rows, device
        self.size = store.size

    def __len__(self) -> int:
        return len(self.rows) * len(self.images)

    def pixels(self, units: np.ndarray) -> Tensor:
        """uint8 (n, 3, s, s) on the device."""
        cases, modality = np.divmod(np.asarray(units), len(self.images))
        picked = np.empty((len(cases), self.size, self.size, 3), np.uint8)
        for m, images in enumerate(self.images):
            at = np.flatnonzero(modality == m)
            picked[at] = images[self.rows[cases[at]]]
        return torch.from_numpy(picked).to(self.device).permute(0, 3, 1, 2)
