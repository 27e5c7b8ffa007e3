"""A class-conditional GAN that is small enough for a CPU: some 140,000 weights a side at 64 pixels.

Generator      noise and condition -> 4 x 4, then at every doubling a convolution whose BatchNorm is scaled and moved by
               noise and condition; tanh. Kept and drawn with is its slow average.
Discriminator  convolutions of stride 2 under spectral norm, summed; a linear score of the features, and their product
               with the condition's embedding (a projection, Miyato and Koyama 2018).
Loss           the hinge; either side sees real and drawn images moved by some pixels, so that few cases are not learnt
               by heart (DiffAugment, Zhao et al. 2020). Nothing is mirrored: a heart lies on the left.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.generate.base import Drawing, Model, Numbers, gaussian
from dermsearch.settings import Settings

SMALLEST = 4  # side of the first map
WIDTHS = (64, 48, 32, 16, 12, 8, 8, 8)  # of the generator's maps, from the smallest on
GAIN = 2**0.5  # behind a rectifier: without it scores under spectral norm are too small for the hinge to bite
SEEN = (16, 32, 64, 96, 128, 128, 128, 128)  # of the discriminator's, from the image on


class Conditional(nn.Module):
    """A BatchNorm that noise and condition scale and move."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm, self.says = nn.BatchNorm2d(channels, affine=False), nn.Linear(width, 2 * channels)
        nn.init.normal_(self.says.weight, std=0.02)
        nn.init.zeros_(self.says.bias)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        scale, move = self.says(said)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + move


class Generator(nn.Module):
    """(n, noise) and (n, width) -> images."""

    def __init__(self, config: Any, drawing: Drawing) -> None:
        super().__init__()
        doublings = (drawing.size // SMALLEST).bit_length() - 1
        widths = [wide(config, w) for w in WIDTHS[: doublings + 1]]
        said = config.noise + config.embedding
        self.embed = nn.Linear(drawing.width, config.embedding, bias=False)
        self.first = nn.Linear(said, widths[0] * SMALLEST**2)
        self.norms = nn.ModuleList([Conditional(w, said) for w in widths])
        self.maps = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)])
        self.last = nn.Conv2d(widths[-1], drawing.channels, 3, padding=1)

    def forward(self, noise: Tensor, told: Tensor) -> Tensor:
        said = torch.cat([noise, self.embed(told)], 1)
        x = self.first(said).unflatten(1, (-1, SMALLEST, SMALLEST))
        x = x.contiguous(memory_format=torch.channels_last)
        for norm, convolve in zip(self.norms, self.maps, strict=False):  # the last norm has no convolution behind it
            x = convolve(F.interpolate(F.relu(norm(x, said)), scale_factor=2))
        return torch.tanh(self.last(F.relu(self.norms[-1](x, said))))


class Discriminator(nn.Module):
    """Images and (n, width) -> (n,) scores: high for what is taken for real, and for what is asked for."""

    def __init__(self, config: Any, drawing: Drawing) -> None:
        super().__init__()
        halvings = (drawing.size // SMALLEST).bit_length() - 1
        widths = [drawing.channels, *(wide(config, w) for w in SEEN[:halvings])]
        self.maps = nn.ModuleList([spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths)])
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.embed = spectral_norm(nn.Linear(drawing.width, widths[-1], bias=False))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        for convolve in self.maps:
            x = GAIN * F.leaky_relu(convolve(x), 0.2)
        features = x.sum((2, 3))
        return self.score(features)[:, 0] + (self.embed(told) * features).sum(1)


class GAN(Model):
    """A generator and the discriminator that it learns to deceive."""

    name = "gan"

    class Config(Settings):
        """The two networks, and how they learn."""

        width: float = Field(1.0, gt=0, le=64, description="of all maps, as a multiple of the smallest that draws well")
        noise: int = Field(48, ge=1, le=4096, description="random numbers behind an image")
        embedding: int = Field(16, ge=1, le=4096, description="numbers that the labels are told in")
        lr: float = Field(1e-3, gt=0, le=1, description="rate of the generator's Adam")
        faster: float = Field(2.0, gt=0, le=100, description="the discriminator's rate, as a multiple of that")
        moved: float = Field(
            0.125, ge=0, le=0.5, description="the most that images are moved by, as a share of the side"
        )
        average: float = Field(0.99, ge=0, lt=1, description="how slowly the kept generator follows, at every step")

    def __init__(self, config: Any, drawing: Drawing) -> None:
        super().__init__(config, drawing)
        self.generator, self.discriminator = Generator(config, drawing), Discriminator(config, drawing)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)

    @classmethod
    def check(cls, config: Any, size: int) -> None:
        if size & (size - 1) or not 16 <= size <= 512:
            raise UserError(f"--side: must be 16, 32, 64, 128, 256 or 512 for model 'gan', not {size}")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rates = (self.config.lr, self.generator), (self.config.lr * self.config.faster, self.discriminator)
        return [torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.9), foreach=True) for lr, net in rates]

    def step(self, real: Tensor, told: Tensor, numbers: Numbers, of: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
        by_generator, by_discriminator = of
        self.generator.train()
        drawn = self.generator(gaussian(numbers("noise", self.config.noise), real.device), told)
        seen = torch.cat([self.moved(real, numbers("real", 2)), self.moved(drawn.detach(), numbers("drawn", 2))])
        on_real, on_drawn = self.discriminator(seen, torch.cat([told, told])).chunk(2)
        loss = F.relu(1 - on_real).mean() + F.relu(1 + on_drawn).mean()
        take_step(loss, by_discriminator)
        self.discriminator.requires_grad_(False)
        deceived = -self.discriminator(self.moved(drawn, numbers("deceiving", 2)), told).mean()
        take_step(deceived, by_generator)
        self.discriminator.requires_grad_(True)
        self.follow()
        return {"discriminator": loss.detach(), "generator": deceived.detach()}

    def moved(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """Each image moved down and across by its own whole number of pixels; what comes in is mirrored."""
        most = round(self.config.moved * self.drawing.size)
        if not most:
            return images
        wide, side = F.pad(images, [most] * 4, mode="reflect"), self.drawing.size
        places = np.floor(numbers * (2 * most + 1)).astype(int).tolist()
        return torch.stack([x[:, a : a + side, b : b + side] for x, (a, b) in zip(wide, places, strict=True)])

    @torch.no_grad()
    def follow(self) -> None:
        """The kept generator moves a little towards the one that learns."""
        now = self.generator.state_dict()
        for name, kept in self.average.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(now[name], 1 - self.config.average)
            else:
                kept.copy_(now[name])

    def drawer(self) -> nn.Module:
        return self.average

    def noise(self) -> int:
        return int(self.config.noise)

    def draw(self, uniforms: np.ndarray, told: Tensor) -> Tensor:
        return self.average(gaussian(uniforms, told.device), told)


def wide(config: Any, width: int) -> int:
    """How many maps a layer has."""
    return max(1, round(config.width * width))


def take_step(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step along the gradient of the global batch, of which every process has as many rows."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if world.size() > 1:
        given = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        whole = world.reduce_sum(torch.cat([g.flatten() for g in given])) / world.size()
        for grad, part in zip(given, whole.split([g.numel() for g in given]), strict=True):
            grad.copy_(part.view_as(grad))
    optimizer.step()
