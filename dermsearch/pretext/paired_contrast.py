"""SM3's first task: a lesion's dermoscopic and clinical photographs are views of one thing. (Wang et al.)

Views   two of each image, of one family: resized crop, flip, strong jitter, grayscale, blur; drawn for each alone.
Heads   projectors of three layers with BatchNorm: one per modality, and what `fusion` says for the cross term.
Loss    NT-Xent between the views within each modality, plus a cross term between the modalities:
        none        nothing: SimCLR in every branch;
        concat      the features of both images side by side are one embedding, and NT-Xent between its views;
        sep_shared  NT-Xent between dermoscopic and clinical views, through one projector for both;
        sep_sep     the same through a projector for each (the paper's choice).

`pairing` tells which dermoscopic view meets which clinical one: 0 the same number, 1 the other, 2 all four; the paired
losses are averaged, as in the authors' code. `cross: printed` takes the paper's equation 4 instead: anchors are the
first dermoscopic views alone, and what is printed without its own positive in the denominator has it here.
A case without one of its images trains the branch of the other, and is left out of the cross term.
Negatives are those of all processes, where the authors' are of one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.models.contrast import nt_xent
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import Batch, JointTask, Loss, Setting, Settings
from dermsearch.pretext.views import contrastive, jitter

Views = tuple[Tensor, Tensor]
PAIRINGS = {0: ((0, 0), (1, 1)), 1: ((0, 1), (1, 0)), 2: ((0, 0), (1, 1), (0, 1), (1, 0))}


class PairedContrast(JointTask):
    """Contrast within and across two modalities."""

    name = "paired_contrast"
    contrasts = True
    train_defaults: ClassVar = {
        "optimizer": "adamw",
        "lr": 1e-6,  # from ImageNet weights, for 400 epochs; random weights need a thousand times as much
        "weight_decay": 0.01,
        "schedule": "constant",
        "warmup": 0.0,
    }

    class Config(Settings):
        """The paper's: sep_sep, temperature 0.1. Batches are small, so gather all the negatives there are."""

        # What is contrasted beside each modality by itself.
        fusion: Literal["none", "concat", "sep_shared", "sep_sep"] = "sep_sep"
        temperature: float = Field(0.1, gt=0, le=10)  # of every contrast
        pairing: Literal[0, 1, 2] = 0  # which views of the two images are set against one another
        cross: Literal["symmetric", "printed"] = "symmetric"  # of sep_shared and sep_sep
        cross_weight: float = Field(1.0, gt=0, le=1000)  # against the two terms within the modalities
        strength: float = Field(1.0, ge=0, le=2.5)  # of the colour jitter
        scale: float = Field(0.5, gt=0, le=1)  # smallest share of the image that a crop takes
        out: int = Field(128, ge=2, le=65536)  # width of what is contrasted

    def __init__(self, backbones: nn.ModuleDict, config: Any, setting: Setting) -> None:
        super().__init__(backbones, config, setting)
        self.view = contrastive(setting.size, config.scale, jitter=jitter(config.strength))
        own = {"none": (), "concat": ("both",), "sep_shared": ("both",), "sep_sep": tuple(backbones)}[config.fusion]
        width = setting.dim * (2 if config.fusion == "concat" else 1)
        self.within = nn.ModuleDict({b: projector(setting.dim, config.out) for b in backbones})
        self.across = nn.ModuleDict({b: projector(width, config.out) for b in own})

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """Two modalities, and images enough to be told from one another."""
        if setting.modalities and len(setting.modalities) != 2:
            raise UserError(f"fusion: pairs two modalities, and data.modalities names {len(setting.modalities)}")
        if setting.batch < 2:
            raise UserError(f"batch: must be at least 2, for negatives, not {setting.batch}")
        if config.cross == "printed" and config.fusion in ("none", "concat"):
            raise UserError(f"cross: printed goes with fusion sep_shared and sep_sep, not with {config.fusion}")
        if config.cross == "printed" and config.pairing:
            raise UserError(
                f"pairing: must be 0 where cross is printed, which has pairs of its own, not {config.pairing}"
            )

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Two views of an image, forward and backward."""
        return 2.0

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        features: dict[str, Views] = {}
        there = {b: batch.there for b, batch in batches.items()}
        for b, batch in batches.items():
            first, second = self.backbones[b](torch.cat(batch.views([self.view] * 2, "view"))).chunk(2)
            features[b] = first, second
        within = {}
        for b, x in features.items():
            one, other = self.within[b](torch.cat(x)).chunk(2)
            within[b] = nt_xent(one, other, self.config.temperature, there[b])
        both = torch.stack(list(there.values())).all(0)
        cross = self.cross(features, both)
        found = {}
        for b, value in within.items():
            parts = {"within": value} | ({} if cross is None else {"cross": cross})
            share = value if cross is None else value + self.config.cross_weight * cross / len(within)
            found[b] = Loss(share, features[b][0], parts)
        return found

    def cross(self, features: Mapping[str, Views], there: Tensor) -> Tensor | None:
        """The term between the modalities, of the cases that have both images."""
        c = self.config
        if c.fusion == "none":
            return None
        pairs = PAIRINGS[c.pairing]
        if c.fusion == "concat":
            derm, clinic = features.values()
            joined = [
                [self.across["both"](torch.cat([derm[i], clinic[j]], 1)) for i, j in two] for two in halves(pairs)
            ]
            return torch.stack([nt_xent(first, second, c.temperature, there) for first, second in joined]).mean()
        derm, clinic = (
            tuple(self.across[b if b in self.across else "both"](x) for x in views) for b, views in features.items()
        )
        if c.cross == "printed":
            return equation_4(derm, clinic, c.temperature, there)
        return torch.stack([nt_xent(derm[i], clinic[j], c.temperature, there) for i, j in pairs]).mean()


def projector(width: int, out: int) -> nn.Sequential:
    """Three linear layers, each with a BatchNorm, the last one's without weights."""
    return mlp(width, width, width, out, norm=True, bias=False).append(nn.BatchNorm1d(out, affine=False))


def halves(pairs: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], ...]]:
    """Pairs two by two: each two are the two views of a case."""
    return [pairs[i : i + 2] for i in range(0, len(pairs), 2)]


def equation_4(derm: Views, clinic: Views, temperature: float, there: Tensor) -> Tensor:
    """The cross term as the paper prints it, repaired, as the mean over anchors.

    Anchors are first dermoscopic views; their positives the first and the second clinical view, each among all clinical
    views of its number and the first dermoscopic views of other cases.
    """
    with torch.autocast(there.device.type, enabled=False):
        a, *others = (F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1) for z in (derm[0], *clinic))
        everyone = world.gather(there)
        itself = torch.arange(len(a), device=a.device) + len(a) * world.rank()
        alike = a / temperature @ world.gather_with_gradient(a).T
        alike = alike.scatter(1, itself[:, None], -torch.inf).masked_fill(~everyone, -torch.inf)
        terms = []
        for z in others:
            towards = (a / temperature @ world.gather_with_gradient(z).T).masked_fill(~everyone, -torch.inf)
            logits = torch.cat([towards, alike], 1).where(there[:, None], 0.0)
            terms.append(F.cross_entropy(logits, itself, reduction="none").where(there, 0.0))
        return torch.stack(terms).sum() / everyone.sum().clamp(min=1) * world.size()
