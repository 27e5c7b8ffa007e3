"""Who judges made images: a classifier that has learnt a store's real training cases, and never saw a made one.

Its features are what images are compared by, its predictions whether a made image shows what it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.views.augment import plain
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError
from dermsearch.fit.base import predictor
from dermsearch.generate.quality import kid
from dermsearch.models.artifact import ENCODERS, PREDICTOR, Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.storage.keys import digest
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.training.fits import predict_fit, train_fit
from dermsearch.training.health import StageFailed
from dermsearch.work.stages import from_what_is_left

FIT, VERSION, BATCH = "finetune", 1, 256
DEAD = 1e-3  # of the largest spread: a feature below it is none
SOME = 1000  # training cases that images are held against


@dataclass(frozen=True)
class Judging:
    """All that decides a judge beside the cases."""

    modality: str
    size: int
    encoder: str = "resnet10t"  # what it begins with: an architecture with random weights,
    stage: str = ""  # or a finished stage
    epochs: int = 8
    lr: float = 1e-3
    batch: int = 32
    seed: int = 0


class Critic:
    """The classifier, and the scale that features are on: the real training cases' own."""

    def __init__(self, key: str, part: Part, cases: CaseStore, judging: Judging, device: torch.device) -> None:
        self.key, self.part, self.device, self.modality = key, part, device, judging.modality
        self.encoders = predictor(part).to(device).encoders.to(memory_format=torch.channels_last)
        self.domain, self.look = cases.domain, Look(judging.size)
        self.rows = seen(cases, judging.modality, "train")
        self.scale = np.ones(1), np.zeros(1)
        raw = self.features(cases, self.rows)
        spread = raw.std(0)
        dead = spread <= DEAD * spread.max()  # what no real image moves would outshout all else
        self.scale = np.where(dead, np.inf, spread), raw.mean(0)
        self.train = (raw - self.scale[1]) / self.scale[0]  # of the training cases

    def features(self, cases: CaseStore, rows: np.ndarray) -> np.ndarray:
        """(n, d) of a store's images."""
        return self._features(lambda at: pictures(cases, self.modality, rows[at], self.look, self.device), len(rows))

    def features_of(self, images: np.ndarray) -> np.ndarray:
        """(n, d) of uint8 images (n, side, side, 3)."""
        mean, deviation = self.domain.statistics[self.look.statistics]
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return self._features(lambda at: Pictures(pixels[at], None, mean, deviation), len(images))

    @torch.no_grad()
    def _features(self, images: Callable[[slice], Pictures], count: int) -> np.ndarray:
        found = []
        for start in range(0, count, BATCH):
            x = plain(images(slice(start, min(start + BATCH, count))), self.look.size)
            found.append(self.encoders(x, self.modality).double().cpu().numpy())
        spread, mean = self.scale
        return (np.concatenate(found) - mean) / spread

    def far(self, images: np.ndarray) -> float:
        """KID of images against training cases."""
        few = np.random.default_rng(0).permutation(len(self.train))[:SOME]
        return float(kid(self.features_of(images), self.train[few], np.zeros(len(images)), np.zeros(len(few)))[0])

    def predict(self, cases: CaseStore, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities of every label's real classes."""
        return predict_fit(self.part, cases, rows, self.look, self.device, "fp32")


def make_judge(cases: CaseStore, judging: Judging, store: StageStore, report: Callable[[Any], None]) -> Critic:
    """From the stage store, or trained and kept there."""
    rows, device = seen(cases, judging.modality, "train"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = {"epochs": judging.epochs, "lr": judging.lr, "batch": judging.batch}
    told = judging.encoder if not judging.stage else {"stage": judging.stage}
    what = {"cases": cases.fingerprint, "modality": judging.modality, "size": judging.size}
    key = digest("judge of made cases", VERSION, what, told, config, judging.seed)
    if store.manifest(key) is None:
        artifact: Artifact = {}  # encoders alone are judged from
        encoders = start(judging, store)
        partial = PartialStage(store, key, every=30)
        look = Look(judging.size)
        given = (FIT, config, judging.seed, artifact, encoders, cases, rows, partial, report, device, "fp32", look)
        try:
            trained = from_what_is_left(partial, lambda: train_fit(*given))
        except StageFailed as error:
            raise UserError(f"the judge: {error}; let it begin with another --encoder or --stage") from None
        about = {"kind": "fit", "task": FIT, "parent": judging.stage, "settings": config, "seed": judging.seed}
        store.commit(key, trained.parts, trained.history, about)
    return Critic(key, store.artifact(key)[PREDICTOR], cases, judging, device)


def start(judging: Judging, store: StageStore) -> Encoders:
    """What the judge begins with."""
    if not judging.stage:
        return Encoders.random(judging.encoder, (judging.modality,), "shared", judging.seed)
    if store.manifest(judging.stage) is None:
        raise UserError(
            f"--stage: the store '{store.where}' has no finished stage {judging.stage}; `dermsearch store list` shows "
            "them"
        )
    artifact = store.artifact(judging.stage)
    if ENCODERS not in artifact or judging.modality not in artifact[ENCODERS].config["modalities"]:
        raise UserError(f"--stage: {judging.stage} has no encoder that sees {judging.modality}")
    part = artifact[ENCODERS]
    made = Encoders.empty(**part.config).load(part.state)
    alone = Encoders.empty(part.config["name"], (judging.modality,), "shared")
    backbone = made.backbones[made.branch_of(judging.modality)].state_dict()
    return alone.load({f"backbones.shared.{name}": w for name, w in backbone.items()})


def seen(cases: CaseStore, modality: str, split: str) -> np.ndarray:
    """Rows of a split that have such an image."""
    rows = cases.split(split)
    return rows[cases.has(modality)[rows]]
