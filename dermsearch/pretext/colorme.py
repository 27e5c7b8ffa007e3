"""ColorMe: paint red and blue from green, and tell how much there is of them. (Li et al. 2020; as in Groeger et al.)

Views   a resized crop, flipped or not. The backbone sees its green channel alone, three times over, as it sees any
        grey picture: its shape stays that of all other tasks, and red and blue stay unknown to it.
Heads   a U-Net decoder from the backbone's maps -> red and blue of every pixel.
        pooled features -> linear, softmax -> the shares of five equal bins of red and five of blue.
Loss    `painting` x mean squared error over the picture with its true green, that is two thirds of that over red and
        blue; plus `colours` x KL divergence of the predicted histogram from the true one, both halves of which sum
        to one half. Colours count from 0 to 1. The KL is a mean over images: the authors' sum would
        let a larger batch shift the balance of the two.

The authors began with ImageNet's weights and one input channel; here as everywhere the weights are those handed on.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.models.decoder import Decoder, map_sizes
from dermsearch.pretext.base import Batch, Loss, Setting, Settings, Task

RED, GREEN, BLUE = 0, 1, 2
BINS = 5


class ColorMe(Task):
    """Colourisation and the histogram of colours."""

    name = "colorme"
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 1e-3,
        "lr_batch": 50,
        "momentum": 0.9,  # the paper is silent on momentum and decay
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "clip": 3.0,
    }

    class Config(Settings):
        """`dark`: pixels all of whose colours are below this stay out of the histogram, where black borders would rule.

        At 0 every pixel counts, as the authors have it; 0.1 leaves out the corners of a dermatoscope's field.
        """

        painting: float = Field(10.0, ge=0, le=1e6)  # weight of painting red and blue
        colours: float = Field(1.0, ge=0, le=1e6)  # weight of guessing the histogram of colours
        scale: float = Field(0.5, gt=0, le=1)  # smallest share of the image that a crop takes
        dark: float = Field(0.0, ge=0, lt=1)  # pixels below it, in all colours, are not counted

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.view = View(setting.size, scale=(config.scale, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, vflip=0.5)
        self.decoder = Decoder([stage["num_chs"] for stage in backbone.feature_info], 2)  # type: ignore[union-attr]
        self.head = nn.Linear(setting.dim, 2 * BINS)

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """The decoder needs maps of several sizes, and a backbone that nothing teaches is not trained."""
        if map_sizes(setting.encoder) < 2:
            raise UserError(
                "encoder.name: must make maps of several sizes, as convolutional networks do, "
                f"for colorme to paint from, not '{setting.encoder}'"
            )
        if not config.painting + config.colours:
            raise UserError("painting: must be above 0 where colours is 0, not 0")

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """One view, forward and backward; the decoder is not counted."""
        return 1.0

    def loss(self, batch: Batch) -> Loss:
        x = batch.view(self.view, "view").float()
        mean, std = batch.statistics(x)
        image = (x * std + mean).clamp(0, 1)
        grey = (planes(image, [GREEN] * 3) - mean) / std
        # The backbone in its two halves: maps on the way, then pooling and what follows it. They make what it makes.
        last, maps = self.backbone.forward_intermediates(grey.to(self.head.weight.dtype))  # type: ignore[operator]
        features = self.backbone.forward_head(last)  # type: ignore[operator]
        error = painting_error(self.decoder(maps, x.shape[-1]), image)
        divergence = colour_divergence(self.head(features), histogram(image, self.config.dark))
        value = self.config.painting * error + self.config.colours * divergence
        return Loss(value, features, {"error": error, "divergence": divergence})


def planes(image: Tensor, colours: list[int]) -> Tensor:
    """Some colours of (b, 3, h, w), in this order; a list of places would have to be sent to the device."""
    return torch.stack([image[:, colour] for colour in colours], 1)


def painting_error(painted: Tensor, image: Tensor) -> Tensor:
    """Mean squared error of (b, 2, h, w) red and blue, over all three channels, of which green is right."""
    precision = torch.promote_types(painted.dtype, torch.float32)
    return (painted.to(precision) - planes(image, [RED, BLUE])).square().mean() * 2 / 3


def colour_divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """KL(truth || softmax of logits), mean over images; an empty bin of the truth costs nothing."""
    predicted = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    return F.kl_div(predicted, truth.to(predicted.dtype), reduction="batchmean")


def histogram(image: Tensor, dark: float = 0.0) -> Tensor:
    """(b, 10): the shares of five equal bins of red and of five of blue, of all that is counted of both.

    The last bin holds 1.0. A picture that is dark all over has a histogram of zeros, which asks nothing of anyone.
    """
    # Pixels are levels of 255, and every 51st is the first of a bin: rounding must not put it into the one below.
    bins = (planes(image, [RED, BLUE]) * BINS + 1e-4).long().clamp(max=BINS - 1).flatten(2)  # (b, 2, pixels)
    seen = (image >= dark).any(1, keepdim=True).flatten(2)
    counts = torch.stack([((bins == k) & seen).sum(2) for k in range(BINS)], 2).flatten(1)  # (b, 10)
    return counts.to(image.dtype) / counts.sum(1, keepdim=True).clamp(min=1)
