"""DCAN: gates, corrections and discrepancies, and a regulariser class by class. (Li et al. 2020)

That sets each class of the source against a random part of it, corrected: in a few classes it pulls them together,
against the classifier. `regulariser: released` has the public code's slips too: its part is always the batch's first
rows, and its pairs are off where the class is larger or smaller than the part.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dermsearch.fit.our_alignment import AlignmentSettings, OurAlignment, finite
from dermsearch.models.alignment import FIXED, regulariser
from dermsearch.numbers import uniforms
from dermsearch.pretext.base import Batch

SHARE = 0.8  # of the source, divided by the classes, that a class is set against


class DCAN(OurAlignment):
    """With the regulariser that `our_alignment` leaves out."""

    name = "dcan"
    version = 2

    class Config(AlignmentSettings):
        """Whether and how classes are set against the mixture."""

        regulariser: Literal["none", "full", "released"] = Field("full", description="class by class")

    def more(self, source: Tensor, batch: Batch) -> dict[str, Tensor]:
        if self.config.regulariser == "none":
            return {}
        known = [batch.pool.labels(name, batch.units) for name in self.setting.counts]  # of the global batch
        labels = zip(self.heads(source), known, strict=True)
        each = [self.of_label(k, source, finite(x), t, batch) for k, (x, t) in enumerate(labels)]
        return {"regulariser": torch.stack(each).mean()}

    def of_label(self, label: int, source: Tensor, logits: Tensor, truth: np.ndarray, batch: Batch) -> Tensor:
        """The mean over a label's classes, as the host knows them; one with too few rows counts nothing."""
        config: Any = self.config
        kind, how, classes = config.regulariser, config.estimator, logits.shape[1]
        total = logits.sum() * 0.0
        corrected = self.correction(source)
        redone = self.corrections[label](finite(self.heads(corrected)[label]))
        least = 1 if "released" in kind else 2
        for c in range(classes):
            rows = batch.on_device(np.flatnonzero(truth == c))
            drawn = uniforms(batch.seed, batch.step, np.arange(len(truth)), f"part/{label}/{c}", 1)[:, 0]
            among = np.flatnonzero(drawn < SHARE / classes)
            part = batch.on_device(np.arange(len(among)) if kind == "released" else among)
            if min(len(rows), len(part)) >= least:
                total = total + regulariser(source[rows], corrected[part], kind, how)
                total = total + regulariser(logits[rows], redone[part], kind, how, FIXED)
        return total / classes
