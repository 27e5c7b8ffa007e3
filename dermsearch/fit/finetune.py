"""Fine-tuning: encoders and heads are all trained on the labelled training cases, from their images."""

from __future__ import annotations

import copy

import numpy as np
from pydantic import Field

from dermsearch.evaluate.base import Given
from dermsearch.evaluate.handover import Training
from dermsearch.models.artifact import HEADS
from dermsearch.nature import Nature

BATCH = 256  # held-out images at once


class FinetuneConfig(Training):
    """Settings of fine-tuning."""

    lr: float = Field(1e-4, gt=0, le=10, description="constant rate of AdamW")
    epochs: int = Field(50, ge=1, le=100_000, description="the last one counts: no epoch is chosen")
    batch: int = Field(64, ge=2, le=1_000_000, description="training cases of a step")
    crop: float = Field(0.5, gt=0, le=1, description="the smallest random crop, as a share of the image's area")


class Finetune:
    """A copy of the encoders with heads for all labels, those handed on where there are; every weight learns."""

    name = "finetune"
    version = 2
    nature = Nature(frozenset({"images", "heads"}))
    Config = FinetuneConfig

    def predict(self, given: Given, config: FinetuneConfig, seed: int) -> dict[str, np.ndarray]:
        """Probabilities of all labels on whole held-out images. The encoders given stay as they are."""
        import torch
        from torch import Tensor, nn

        from dermsearch.data.store.pool import pictures
        from dermsearch.data.views.augment import View, plain, render
        from dermsearch.fit.heads import Heads, fit, known_truth, own_randomness, probabilities
        from dermsearch.numbers import uniforms

        features, images = given.features, given.images
        if images is None:
            raise ValueError("finetune: trains on images, and none are given")
        device, look = images.device, images.look
        rows, truth = known_truth(features)
        train = images.train[rows]
        sizes = [len(names) for names in features.classes.values()]
        view = View(look.size, scale=(config.crop, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)

        with own_randomness(seed, device, torch.get_num_threads()):
            encoders = copy.deepcopy(images.encoders).requires_grad_(True)
            modalities = encoders.modalities
            heads = Heads(encoders.dim * len(modalities), sizes, truth, given.artifact.get(HEADS), seed).to(device)

            def features_of(views: dict[str, Tensor]) -> Tensor:
                with images.cast():
                    return torch.cat([encoders(views[m], m).float() for m in modalities], 1)

            def cropped(modality: str, cases: np.ndarray, epoch: int) -> Tensor:
                u = uniforms(seed, epoch, cases, f"finetune/{modality}", View.numbers)
                return render(view, pictures(images.cases, modality, cases, look, device), u)

            def whole(modality: str, cases: np.ndarray) -> Tensor:
                return plain(pictures(images.cases, modality, cases, look, device), look.size)

            def logits(cases: np.ndarray, epoch: int) -> list[Tensor]:
                return heads(features_of({m: cropped(m, train[cases], epoch) for m in modalities}))

            both = nn.ModuleList([encoders, heads])
            fit(both, logits, truth, config, seed, self.name)
            both.eval()
            with torch.no_grad():
                parts = [
                    heads(features_of({m: whole(m, images.heldout[start : start + BATCH]) for m in modalities}))
                    for start in range(0, len(images.heldout), BATCH)
                ]
        return probabilities([torch.cat(each) for each in zip(*parts, strict=True)], features, truth)
