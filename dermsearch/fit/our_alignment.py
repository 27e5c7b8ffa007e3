"""Gates, corrections and two discrepancies that are made small: DCAN without its regulariser. (AISEEME D4)

Gates   in each block, whose first layer is each domain's own. A network that has none gets one for each of its stages,
        which begins as the identity.
Loss    cross-entropy of the source + alpha x (MMD of features + MMD of probabilities) + beta x entropy of the target,
        the target's corrected. `ramp` lets alpha and beta in slowly.
Predict by corrected logits, through the target's gates.

As the report and the public code have it: `estimator: ring, statistics: frozen, ramp: false, alpha: 1.5`. That
collapses where a target lies far off; the defaults are what bore it best. Their SGD is AdamW here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.fit.adaptation import Adaptation, AdaptationSettings, Statistics
from dermsearch.models.alignment import FIXED, Correction, Doubled, Gate, entropy, mmd, ramp
from dermsearch.models.encoders import Encoders, is_vit
from dermsearch.pretext.base import Batch, Setting


class AlignmentSettings(AdaptationSettings):
    """How strongly, and by what, the domains are made alike."""

    estimator: Literal["full", "ring"] = Field("full", description="all pairs of rows, or each and its neighbour")
    alpha: float = Field(0.5, ge=0, le=100, description="weight of the discrepancies")
    beta: float = Field(0.1, ge=0, le=100, description="weight of the target's entropy")
    ramp: bool = Field(True, description="let both in slowly")
    statistics: Literal["each", "frozen"] = Field("each", description="of BatchNorm: either domain's, or the source's")
    gates: bool = Field(True, description="weigh channels by domain")
    reduction: int = Field(16, ge=1, le=1024, description="of a gate's hidden layer")
    hidden: int = Field(128, ge=1, le=65536, description="width of the features' correction")


class OurAlignment(Adaptation):
    """Discrepancies of features and probabilities."""

    name = "our_alignment"
    version = 2
    aligns = True

    class Config(AlignmentSettings):
        """Nothing of its own."""

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        self.added = nn.ModuleList()
        if config.gates:
            for backbone in encoders.backbones.values():
                self.added.extend(gated(backbone, encoders.name, config.reduction))
        self.correction = Correction(self.width, config.hidden)
        self.corrections = nn.ModuleList(Correction(len(c), len(c)) for c in setting.counts.values())

    def statistics(self) -> Statistics:
        return self.config.statistics

    def logits(self, features: Tensor) -> list[Tensor]:
        return self.corrected(self.heads(self.correction(features)))

    def corrected(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """Logits of every label; a class that the source has not stays out of it."""
        absent = [x.isneginf() for x in logits]
        found = (c(finite(x)) for c, x in zip(self.corrections, logits, strict=True))
        return [x.masked_fill(a, -torch.inf) for x, a in zip(found, absent, strict=True)]

    def align(self, source: Tensor, target: Tensor, truth: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        share = ramp(self.progress(batch.step)) if self.config.ramp else 1.0
        parts, how = dict[str, Tensor](), self.config.estimator
        ours, theirs = world.gather_with_gradient(source), world.gather_with_gradient(target)  # of the global batch
        with world.alone():  # it is whole here: heads that drop drop the same on every process
            corrected = self.correction(theirs)
            parts["mmd"] = mmd(ours, corrected, how)
            told = self.corrected(self.heads(corrected))
            each = zip(self.heads(ours), told, strict=True)
            pairs = [(x.softmax(1), y.softmax(1)) for x, y in each]
            parts["mmd_classes"] = torch.stack([mmd(x, y, how, FIXED) for x, y in pairs]).mean()
            parts |= self.more(ours, batch)
            unsure = torch.stack([entropy(y) for _, y in pairs]).mean()
        value = share * (self.config.alpha * torch.stack(list(parts.values())).sum() + self.config.beta * unsure)
        return value, parts

    def more(self, source: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What else is made small, of the global batch's source."""
        return {}


def finite(logits: Tensor) -> Tensor:
    """Zeros for classes that there are none of."""
    return logits.masked_fill(logits.isneginf(), 0.0)


def gated(backbone: nn.Module, name: str, reduction: int) -> list[Gate]:
    """Double the first layer of each gate that a backbone has; else let gates in behind its stages: these."""
    own = [m for m in backbone.modules() if hasattr(m, "fc1") and hasattr(m, "fc2") and hasattr(m, "gate")]
    for module in own:
        module.fc1 = Doubled(module.fc1, copy.deepcopy(module.fc1))  # type: ignore[arg-type]
    if own:
        return []
    stages: Any = getattr(backbone, "feature_info", None)
    if not stages or is_vit(name):
        raise UserError(f"gates: must be false for encoder '{name}', which makes no maps of channels")
    found = []
    for stage in stages:
        module = backbone.get_submodule(stage["module"])
        if next(module.parameters(), None) is not None:
            gate = Gate(stage["num_chs"], reduction)
            module.register_forward_hook(lambda _, given, maps, gate=gate: gate(maps))
            found.append(gate)
    return found
