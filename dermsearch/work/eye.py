"""A finished stage's encoders as an eye that looks at any store: for what is done with them outside of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS
from dermsearch.models.encoders import Encoders
from dermsearch.storage.stages import StageStore
from dermsearch.study.data import Data
from dermsearch.work.features import extract


@dataclass(frozen=True)
class Eye:
    """Encoders, and how they look at images of one modality."""

    stage: str
    encoders: Encoders
    data: Data

    @property
    def modality(self) -> str:
        """The one that it looks at."""
        return self.data.modalities[0]

    def features(self, cases: CaseStore, rows: np.ndarray) -> np.ndarray:
        """(rows, d) float32, of cases that have such an image."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return extract(self.encoders.to(device), cases, self.data, rows, device, "fp32")

    def sees(self, cases: CaseStore, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that have such an image."""
        return rows[cases.has(self.modality)[rows]]


def open_eye(
    store: str,
    stage: str,
    cases: Sequence[CaseStore],
    modality: str | None = None,
    size: int | None = None,
    normalise: str = "imagenet",
) -> Eye:
    """The encoders of a stage that is in a stage store, for cases that all have a modality which they know."""
    stages = StageStore(store, create=False)
    if stages.manifest(stage) is None:
        raise UserError(
            f"--stage: the store '{store}' has no finished stage {stage}; `dermsearch store list` shows them"
        )
    artifact = stages.artifact(stage)
    if ENCODERS not in artifact:
        raise UserError(f"--stage: {stage} is a fit, which hands on no encoders")
    part = artifact[ENCODERS]
    encoders = Encoders.empty(**part.config).load(part.state)
    known = [m for m in encoders.modalities if all(m in each.modalities for each in cases)]
    if modality not in (None, *known) or not known:
        seen, there = ", ".join(encoders.modalities), "; ".join(", ".join(each.modalities) for each in cases)
        raise UserError(f"--modality: the stage sees {seen}, the stores hold {there}: name one that is in all of them")
    side = min(each.side for each in cases)
    if size is not None and size > side:
        raise UserError(f"--size: must be at most {side}, the side of the smaller store's images, not {size}")
    for each in cases:
        if normalise not in each.domain.statistics:
            raise UserError(f"--normalise: must be one of {', '.join(each.domain.statistics)}, not '{normalise}'")
    data = Data(size=max(32, size or min(side, 512)), modalities=(modality or known[0],), normalise=normalise)
    return Eye(stage, encoders, data)
