"""Maps by slopes are those of the package grad-cam, which is what others compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from dermsearch.models.attention import activations, attention

SIDE = 96


def of_tokens(tokens: Tensor) -> Tensor:
    """A ViT's patch tokens, of one prefix token and patches of 16, as a map."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (SIDE // 16, SIDE // 16))


@pytest.mark.parametrize(
    ("name", "told", "layer", "form", "pooled"),
    [
        ("test_resnet", {}, "layer4", None, True),
        ("resnet10t", {"output_stride": 8}, "layer4", None, True),
        ("mobilenetv3_small_050", {}, "blocks", None, False),  # widens features after pooling
        ("test_vit", {"global_pool": "token"}, "blocks.{last}.norm1", of_tokens, False),
        ("test_vit", {"global_pool": "avg", "fc_norm": False}, "norm", of_tokens, True),
    ],
)
def test_maps_are_the_packages(
    name: str, told: dict[str, Any], layer: str, form: Callable[[Tensor], Tensor] | None, pooled: bool
) -> None:
    """But for what it takes away at the end: the least of each map, which would change the share inside a mask."""
    from pytorch_grad_cam import GradCAM

    torch.manual_seed(0)
    size = {"img_size": SIDE} if "vit" in name else {}
    net: Any = timm.create_model(name, num_classes=0, **size, **told).double().eval()
    images = torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64)
    seen = activations(net, images)
    weights = torch.randn(3, seen.features.shape[1], dtype=torch.float64)
    weights *= (seen.features.detach() * weights).sum(1, keepdim=True).sign()
    found = attention(seen.towards(weights), SIDE).numpy()

    wanted = net.get_submodule(layer.format(last=len(getattr(net, "blocks", "")) - 1))
    with GradCAM(net, [wanted], reshape_transform=form) as package:
        theirs = package(images, [lambda features, w=w: (features * w).sum() for w in weights])
    least, most = found.min((1, 2), keepdims=True), found.max((1, 2), keepdims=True)
    assert (seen.source is None) == pooled and (most > least).all()
    np.testing.assert_allclose((found - least) / (most - least), theirs, atol=1e-5)
