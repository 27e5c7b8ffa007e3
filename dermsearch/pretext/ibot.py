"""iBOT: DINO, and say what a hidden patch is as the teacher sees it. (Zhou et al. 2022)

Views   those of DINO. In half of the large crops blocks of patches are hidden from the student: a learnt vector
        takes the place of their embeddings. The teacher sees everything; nothing is hidden in small crops.
Heads   one head for the image's token and the patches' tokens, as DINO's, and a teacher as DINO's, whose backbone
        is handed on. The vector that hides a patch is the task's and goes when the stage ends.
Loss    DINO's between different crops, the student's large ones with what is hidden in them, plus, for the hidden
        patches, the same cross-entropy between student and teacher in the same crop: averaged over the hidden
        patches of a crop (no hidden patch: 0), then over crops and images. Patches have a centre of their own, a
        moving average over all patches of the global batch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dermsearch.data.views.blockmask import BlockMask
from dermsearch.errors import UserError
from dermsearch.models import encoders
from dermsearch.models.centre import Centre
from dermsearch.models.vit import grid, tokens
from dermsearch.pretext.base import Batch, Loss, Setting
from dermsearch.pretext.batch import sent
from dermsearch.pretext.dino import DINO, Head, apart, by_image, ramp


class IBOT(DINO):
    """Image BERT with an online tokenizer."""

    name = "ibot"

    class Config(DINO.Config):
        """DINO's, and `patch_temperature`, the teacher's for patches at the end of its warm-up; `hidden_low` and
        `hidden_high`, between which the share of hidden patches lies in a crop that has any; `image_weight` and
        `patch_weight` of the two losses.
        """

        out: int = Field(8192, ge=2, le=1_000_000)
        local: int = Field(10, ge=0, le=64)
        scale: float = Field(0.25, gt=0.05, lt=1)
        patch_temperature: float = Field(0.07, gt=0, le=10)  # the teacher's for patches, after its warm-up
        masked: float = Field(0.5, ge=0, le=1)  # chance that anything is hidden in a crop
        hidden_low: float = Field(0.1, ge=0, le=1)  # smallest share of a crop's patches that is hidden
        hidden_high: float = Field(0.5, gt=0, le=1)  # largest share
        image_weight: float = Field(1.0, ge=0, le=1000)  # of the loss of whole crops
        patch_weight: float = Field(1.0, ge=0, le=1000)  # of the loss of hidden patches

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        assert isinstance(backbone, VisionTransformer), "Task.check lets no other pass"
        self.blocks = BlockMask(*grid(backbone, setting.size), config.masked, (config.hidden_low, config.hidden_high))
        self.mask_token = nn.Parameter(torch.zeros(setting.dim))
        self.patch_centre = Centre(config.out, config.centre_momentum)

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """Patches are hidden from transformers, and a token is theirs to be compared as the image's."""
        if not has_token(setting.encoder):
            raise UserError(
                "encoder.name: must be a vision transformer of timm with a class token for iBOT, "
                f"such as vit_tiny_patch16_224, not {setting.encoder}"
            )
        if config.hidden_low > config.hidden_high:
            raise UserError(f"hidden_low: must be at most hidden_high, {config.hidden_high}, not {config.hidden_low}")
        if config.image_weight == config.patch_weight == 0:
            raise UserError("image_weight: must be above 0 where patch_weight is 0, not 0")

    def loss(self, batch: Batch) -> Loss:
        images = by_image(batch.views(self.large, "large"))
        masks = np.stack([batch.masks(self.blocks, f"hidden/{i}") for i in range(2)], 1)
        masks = masks.reshape(-1, *masks.shape[2:])  # (2 b, height, width), image by image
        hidden, which = batch.on_device(masks), batch.on_device(np.flatnonzero(masks))
        eye, head = self.teacher.parts
        assert isinstance(self.backbone, VisionTransformer)
        assert isinstance(eye, VisionTransformer) and isinstance(head, Head)
        with torch.no_grad():
            features, patches = tokens(eye, images)
            aims = apart(head(features), 2)
            seen = head.project(patches)  # (2 b, patches, bottleneck)
            targets = head.cosines(seen.flatten(0, 1)[which])  # (hidden patches, out)
            mean = head.cosines(seen.mean((0, 1)))  # of all patches' outputs: they are linear in `seen`
        with self.depth.within(images, "large"):
            own, found = tokens(self.backbone, images, hidden, self.mask_token)
        whole = self.compare(aims, apart(self.head(own), 2) + self.small_guesses(batch), features, batch.step)
        warmup = self.config.teacher_warmup * self.setting.steps
        temperature = ramp(batch.step, warmup, self.config.teacher_start, self.config.patch_temperature)
        part = patch_loss(
            (targets - self.patch_centre.value) / temperature,
            self.head(found.flatten(0, 1)[which]) / self.config.temperature,
            masks,
        )
        self.patch_centre.update(mean)  # over all processes, which hold equally many patches
        value = self.config.image_weight * whole.value + self.config.patch_weight * part
        return Loss(value, whole.embedding, whole.parts)


def patch_loss(targets: Tensor, guesses: Tensor, hidden: np.ndarray) -> Tensor:
    """Cross-entropy of logits (hidden patches, out): mean over the hidden patches of a crop, then over the crops.

    Not lightly's: its centre is over hidden patches alone, weighs processes that hid few as those that hid many, and
    is not a number where one hid none.
    """
    counts = hidden.reshape(len(hidden), -1).sum(1)
    of_crop = sent(counts.repeat(counts), targets.device)  # for each hidden patch
    each = -(F.softmax(targets, -1) * F.log_softmax(guesses, -1)).sum(-1)
    return (each / of_crop).sum() / len(hidden)


@cache
def has_token(encoder: str) -> bool:
    """Is it a vision transformer whose features are those of a class token?"""
    if not encoders.is_vit(encoder):
        return False
    with torch.device("meta"):
        vit = encoders.backbone(encoder)
    return vit.has_class_token is True and vit.global_pool == "token"
