"""Vision transformers seen from inside: their tokens, patches that are hidden from them, stochastic depth by number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dermsearch import world
from dermsearch.models.heads import GlobalDropout
from dermsearch.numbers import uniforms


def grid(vit: VisionTransformer, size: int) -> tuple[int, int]:
    """Rows and columns of patches in an image of that side."""
    height, width = vit.patch_embed.dynamic_feat_size((size, size))
    return int(height), int(width)


def tokens(
    vit: VisionTransformer, images: Tensor, hidden: Tensor | None = None, stand_in: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(n, dim) features as the network itself gives them and (n, patches, dim), both after the last norm.

    Where `hidden` (n, height, width) is true, `stand_in` (dim,) takes the place of a patch's embedding.
    """
    if hidden is None or stand_in is None:
        found = vit.forward_features(images)
    else:
        embed = hiding(vit)
        embed.instead = hidden, stand_in
        try:
            found = vit.forward_features(images)
        finally:
            embed.instead = None
    return vit.forward_head(found, pre_logits=True), found[:, vit.num_prefix_tokens :]


class Hiding(PatchEmbed):
    """Embeds patches as timm does, but for those that are to be hidden just now.

    Between embedding and positions timm has no door; a hook that comes and goes would be compiled anew each time.
    """

    instead: tuple[Tensor, Tensor] | None = None  # (n, height, width) where, and (dim,) what stands there

    def forward(self, x: Tensor) -> Tensor:
        embedded = super().forward(x)
        if self.instead is None:
            return embedded
        hidden, stand_in = self.instead
        return torch.where(hidden.unsqueeze(-1), stand_in.to(embedded.dtype), embedded)


def hiding(vit: VisionTransformer) -> Hiding:
    """What embeds its patches, made able to hide some."""
    embed = vit.patch_embed
    if type(embed) is PatchEmbed:
        embed.__class__ = Hiding
    assert isinstance(embed, Hiding), "patches that are embedded otherwise cannot be hidden"
    return embed


class StochasticDepth(GlobalDropout):
    """Leaves out residual branches of a transformer's blocks, image by image, more often the deeper they lie.

    The chance climbs from 0 in the first block to `p` in the last. As in `GlobalDropout` what is left out is
    numbered: it depends on the step, the image's row in the global batch and the use, not on the processes.
    The branches of `backbone` get an end of ours, which does nothing outside `within`. Other backbones than
    transformers stay as they are.
    """

    def __init__(self, backbone: nn.Module, p: float, seed: int) -> None:
        super().__init__(p, seed)
        self.ends: list[BranchEnd] = []  # not modules of this one: they are the backbone's
        self.chances: list[float] = []
        blocks: Any = backbone.blocks if isinstance(backbone, VisionTransformer) else []
        for i, block in enumerate(blocks):
            for name in [n for n, _ in block.named_modules() if n.rpartition(".")[2].startswith("drop_path")]:
                self.ends.append(BranchEnd())
                self.chances.append(p * i / max(1, len(blocks) - 1))
                block.set_submodule(name, self.ends[-1])

    @contextmanager
    def within(self, images: Tensor, use: str) -> Iterator[None]:
        """While this lasts, the backbone is thinned for these rows of the global batch; `use` names the pass."""
        if self.training and self.p and self.ends:
            rows = np.arange(len(images) * world.size())
            drawn = uniforms(self.seed, self.step, rows[world.mine(len(rows))], f"depth/{use}", len(self.ends))
            scales = (drawn >= np.array(self.chances)) / (1 - np.array(self.chances))
            there = torch.from_numpy(scales).to(images.device, non_blocking=True)
            for end, scale in zip(self.ends, there.unbind(1), strict=True):
                end.scale = scale
        try:
            yield
        finally:
            for end in self.ends:
                end.scale = None


class BranchEnd(nn.Module):
    """Where a residual branch meets its block: multiplies the branch by a number for each row."""

    scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.scale is None else x * self.scale[:, None, None].to(x.dtype)
