"""FusionM4Net, second stage: an SVM for each label on what the first one says and on metadata. (Tang et al. 2022)

Input   the probabilities of all labels by the first stage (24 of derm7pt), and metadata as ones and zeros (14).
SVM     radial basis, C 1, with Platt's probabilities; fitted to the cases kept aside, whose probabilities are those of
        a network that has not seen them, as are those of the cases to come.
Answer  w x first stage + (1 - w) x SVM, one w in hundredths for all labels, searched on SVMs that were fitted
        without the patients they answer for (`folds`).

The authors fit SVMs to what a network of half the cases says and let them answer on what one of all says; and metadata
were all twenty columns, of which six are judgements made with the diagnosis known.

What the SVMs were fitted to is kept, and they are fitted again where it predicts: a few hundred rows take a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dermsearch.fit.fusion_m4net import FusionM4Net, FusionSettings, mean_worth
from dermsearch.fit.system import MetadataSettings
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, Setting

LEAST = 2  # cases of a class for an SVM to know it
MIXES = np.linspace(0, 1, 100)


class FusionM4NetSVM(FusionM4Net):
    """The first stage, and SVMs behind it."""

    name = "fusion_m4net_svm"
    inputs: Tensor  # (cases aside, probabilities and metadata)
    known: Tensor  # (cases aside, labels) classes, -1 where unknown
    mix: Tensor  # what the first stage counts

    class Config(FusionSettings, MetadataSettings):
        """More cases are kept aside than for the first stage alone: the SVMs learn from them."""

        aside: float = Field(0.3, ge=0, lt=0.9, description="share of the training cases that SVMs are fitted to")
        folds: int = Field(5, ge=2, le=100, description="of the search for the mix")

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        width = sum(len(each) for each in setting.counts.values()) + sum(self.columns.values())
        self.register_buffer("inputs", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("known", torch.zeros(0, len(setting.counts), dtype=torch.int64))
        self.register_buffer("mix", torch.ones((), dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name in ("inputs", "known"):  # as many rows as there are
            if prefix + name in state_dict:
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def shown(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        first = batches[self.modalities[0]]
        whose = torch.from_numpy(first.pool.groups(first.units))
        return {**super().shown(batches), "table": self.table(batches), "whose": whose}

    def calibrate(self, predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> None:
        super().calibrate(predicted, truth)
        first = self.weighed(predicted)
        self.inputs, self.known = inputs(first, predicted["table"]), torch.stack(list(truth.values()), 1)
        x, known = self.inputs.numpy(), {label: t.numpy() for label, t in truth.items()}
        said, whose = {label: p.numpy() for label, p in first.items()}, predicted["whose"].numpy()
        second = {label: crossed(x, known[label], p, self.config.folds, whose) for label, p in said.items()}
        self.mix.fill_(mixed(said, second, known))

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        shown = self.shown(batches)
        first = self.weighed(shown)
        if not len(self.inputs):
            return first
        x, fitted, classes = inputs(first, shown["table"]).cpu().numpy(), self.inputs.cpu().numpy(), self.known.cpu()
        w, found = float(self.mix), {}
        for k, (label, p) in enumerate(first.items()):
            second = torch.from_numpy(told(fitted, classes[:, k].numpy(), x, p.cpu().numpy()))
            found[label] = w * p + (1 - w) * second.to(p)
        return found


def inputs(first: Mapping[str, Tensor], table: Tensor) -> Tensor:
    """Probabilities of all labels and metadata, side by side."""
    return torch.cat([*(p.double() for p in first.values()), table.double().to(next(iter(first.values())).device)], 1)


def told(x: np.ndarray, truth: np.ndarray, asked: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Probabilities by an SVM fitted to (x, truth); what the first stage says where there is nothing to fit one to."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    cases = np.bincount(truth[truth >= 0], minlength=otherwise.shape[1])
    use = (truth >= 0) & (cases[truth] >= LEAST)
    if (cases >= LEAST).sum() < 2 or not len(asked):
        return otherwise
    folds = int(min(5, cases[cases >= LEAST].min()))
    svm = CalibratedClassifierCV(SVC(C=1.0, kernel="rbf"), cv=folds, ensemble=False).fit(x[use], truth[use])
    found = np.zeros_like(otherwise)
    found[:, svm.classes_] = svm.predict_proba(asked)
    return found


def crossed(x: np.ndarray, truth: np.ndarray, otherwise: np.ndarray, folds: int, whose: np.ndarray) -> np.ndarray:
    """For every case the probabilities by an SVM that was fitted without its fold, which holds patients whole."""
    found, place = otherwise.copy(), np.unique(whose, return_inverse=True)[1]
    for fold in range(folds):
        out = place % folds == fold
        found[out] = told(x[~out], truth[~out], x[out], otherwise[out])
    return found


def mixed(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """How much the first stage counts, for the best mean accuracy; of equals the least."""
    worth = [mean_worth({k: w * first[k] + (1 - w) * second[k] for k in first}, truth, "accuracy") for w in MIXES]
    return float(MIXES[int(np.argmax(np.round(worth, 12)))])
