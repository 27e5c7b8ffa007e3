"""Where a classifier looks: class activation maps of a backbone with linear heads; Grad-CAM where it has no such map.

A network whose features are the mean of its last map gives a logit that is the mean of one map for each class, the map
of that class: one product of weights and channels, without a backward pass. Where that is not so (a ViT that reads its
class token, a network that widens features after pooling), channels are weighed by the mean slope of what is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dermsearch.errors import UserError


@dataclass(frozen=True)
class Activations:
    """What a backbone makes of images: features (n, d), and the map (n, k, h, w) that they come from."""

    features: Tensor
    grid: Tensor
    source: Tensor | None  # what slopes are taken by, of the map's numbers; None: features are the mean of the map

    def towards(self, weights: Tensor) -> Tensor:
        """Maps (n, h, w) of the score `features . weights`; `weights` is (n, d), a row for each image."""
        if self.source is None:
            return torch.einsum("nk,nkhw->nhw", weights, self.grid)
        (slope,) = torch.autograd.grad((self.features * weights).sum(), self.source, retain_graph=True)
        slope = as_grid(slope, self.grid)
        return torch.einsum("nk,nkhw->nhw", slope.mean((2, 3)), self.grid).detach()


def activations(backbone: nn.Module, images: Tensor) -> Activations:
    """Features and map of a timm network in evaluation mode."""
    net: Any = backbone
    kept: list[Tensor] = []
    is_vit = hasattr(net, "blocks") and hasattr(net, "patch_embed")
    with torch.no_grad():
        last = net.forward_features(images)
        features = net.forward_head(last, pre_logits=True).flatten(1)
        grid = tokens(net, last, images) if is_vit else last
        if grid.shape[1] == features.shape[1] and torch.allclose(grid.mean((2, 3)), features, rtol=1e-3, atol=1e-4):
            return Activations(features, grid, None)
    # Slopes of a ViT's patch tokens after its last norm are zero where it reads the class token: one block earlier.
    layer = net.blocks[-1].norm1 if is_vit else None
    hook = layer.register_forward_hook(lambda _, __, out: kept.append(out)) if layer is not None else None
    try:
        with torch.enable_grad():
            last = net.forward_features(images.detach().requires_grad_())
            source = kept[0] if kept else last
            features = net.forward_head(last, pre_logits=True).flatten(1)
    finally:
        if hook is not None:
            hook.remove()
    return Activations(features, (tokens(net, source, images) if is_vit else source).detach(), source)


def map_sides(backbone: nn.Module, size: int) -> tuple[int, int]:
    """Height and width of the map of images of that side, by a backbone without weights (on no device)."""
    net: Any = backbone
    if hasattr(net, "blocks") and hasattr(net, "patch_embed"):
        high, wide = net.patch_embed.patch_size
        return math.ceil(size / high), math.ceil(size / wide)
    h, w = net.forward_features(torch.empty(2, 3, size, size, device="meta")).shape[2:]
    return int(h), int(w)


def tokens(net: Any, last: Tensor, images: Tensor) -> Tensor:
    """A ViT's patch tokens as a map (n, k, h, w)."""
    high, wide = net.patch_embed.patch_size
    h, w = math.ceil(images.shape[2] / high), math.ceil(images.shape[3] / wide)
    return last[:, net.num_prefix_tokens :].transpose(1, 2).unflatten(2, (h, w))


def as_grid(values: Tensor, grid: Tensor) -> Tensor:
    """Numbers of the map, or of tokens, in the form of the map."""
    if values.shape == grid.shape:
        return values
    prefix = values.shape[1] - grid[0, 0].numel()
    return values[:, prefix:].transpose(1, 2).unflatten(2, grid.shape[2:])


def contrast(weights: Tensor, classes: Tensor) -> Tensor:
    """(n, d): for each image the weights (classes, d) of its class less their mean, which all logits share."""
    return weights[classes] - weights.mean(0)


def attention(maps: Tensor, size: int) -> Tensor:
    """What speaks for the class, (n, size, size): never negative, bilinear up from the map; nothing is subtracted."""
    return functional.interpolate(maps.clamp(min=0)[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]


def finer(backbone: nn.Module, name: str, stride: int) -> nn.Module:
    """The same weights in a network that keeps a finer map: later strides become gaps in its convolutions."""
    try:
        with torch.random.fork_rng(devices=[]):
            other = timm.create_model(name, num_classes=0, output_stride=stride)
        other.load_state_dict(backbone.state_dict())
    except (TypeError, NotImplementedError, RuntimeError, AssertionError):
        raise UserError(f"stride: '{name}' keeps no finer map; leave stride out and give a larger size") from None
    return other.to(next(backbone.parameters()).device).eval()
