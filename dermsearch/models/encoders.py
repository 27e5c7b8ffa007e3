"""The encoders: one backbone per modality, separate or shared. They are what is learnt and what is handed on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dermsearch.errors import UserError, nearest
from dermsearch.models.artifact import Part


def check_encoder(name: str) -> None:
    """Refuse a backbone that timm does not know, naming the nearest that it does."""
    if not timm.is_model(name):
        raise UserError(f"encoder.name: '{name}' is not a model of timm; {nearest(name, timm.list_models())}")


def backbone(name: str) -> nn.Module:
    """A backbone of timm without its classifier.

    A ViT takes images of any side: position embeddings are kept for the size in its name and interpolated to what
    it sees, and an image that does not divide into patches gets a margin of zeros, right and below.
    """
    options: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if is_vit(name) else {}
    return timm.create_model(name, num_classes=0, **options)


def is_vit(name: str) -> bool:
    """Has it tokens and position embeddings as timm's VisionTransformer has?"""
    module = timm.models.model_entrypoint(name).__module__ if timm.is_model(name) else ""
    return module == "timm.models.vision_transformer"


class Encoders(nn.Module):
    """Backbones by branch. `shared`: one branch of that name sees all modalities; `separate`: one per modality."""

    def __init__(self, name: str, modalities: Sequence[str], branches: str) -> None:
        super().__init__()
        check_encoder(name)
        self.name = name
        self.config = {"name": name, "modalities": list(modalities), "branches": branches}
        separate = branches == "separate"
        self.modalities = tuple(modalities)
        self.branches: dict[str, tuple[str, ...]] = (
            {m: (m,) for m in modalities} if separate else {"shared": tuple(modalities)}
        )
        self.backbones = nn.ModuleDict({b: backbone(name) for b in self.branches})
        one: Any = next(iter(self.backbones.values()))
        self.dim: int = getattr(one, "head_hidden_size", one.num_features)  # some widen features after pooling

    @classmethod
    def random(cls, name: str, modalities: Sequence[str], branches: str, seed: int) -> Encoders:
        """The root of a curriculum: freshly drawn weights, the same for the same seed and in every branch.

        Branches that start alike, as they do from weights in a file, can be compared: those drawn apart share no axes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = cls(name, modalities, branches)
        first, *others = made.backbones.values()
        for other in others:
            other.load_state_dict(first.state_dict())
        return made

    @classmethod
    def empty(cls, name: str, modalities: Sequence[str], branches: str) -> Encoders:
        """The architecture without weights, to be filled by `load`: costs no drawing of random numbers."""
        with torch.device("meta"):
            encoders = cls(name, modalities, branches)
        if {n for n, _ in encoders.named_buffers()} <= encoders.state_dict().keys():
            return encoders
        return cls.random(name, modalities, branches, 0)  # tables outside the state dict have to be computed

    def load(self, state: dict[str, Tensor]) -> Encoders:
        """Take over the weights that a stage handed on."""
        self.load_state_dict(state, strict=True, assign=True)
        for p in self.parameters():
            p.requires_grad_(True)
        return self

    def part(self) -> Part:
        """These encoders as they are now, to be handed on."""
        return Part.of(self, self.config)

    def seen_through(self, backbones: Mapping[str, nn.Module]) -> Encoders:
        """The same branches with other backbones behind them; these encoders stay as they are."""
        other = copy.copy(self)
        other._modules = {"backbones": nn.ModuleDict(dict(backbones))}
        return other

    def branch_of(self, modality: str) -> str:
        """The branch that looks at images of this modality."""
        return next(b for b, seen in self.branches.items() if modality in seen)

    def forward(self, images: Tensor, modality: str) -> Tensor:
        """(n, 3, s, s) -> (n, dim) pooled features."""
        return self.backbones[self.branch_of(modality)](images)
