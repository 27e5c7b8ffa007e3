"""What the comparison systems of SM3's Table I share: two encoders, seen as pyramids of maps, and groups of logits.

A system is a network over a dermoscopic and a clinical image (and a few values of metadata, where it reads them), a
loss, a recipe of its own and the group of logits that answers. One file shows one system whole; this one is what they
would otherwise repeat. The image of modality `derm` leads; without one, that of the modality that is named first.

Groups  by name the logits of every label: d, c of one image, dm, cm with metadata, dc, dcm of both, f fused, h, g.
Recipe  `own`: the system's. `common`: that of `finetune`, the same for all, so that networks are compared.
Chosen  no epoch: the last one counts for every system.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, field_validator
from torch import Tensor, nn

from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.fit.base import Fit, labels_of, shares
from dermsearch.fit.heads import mean_loss, probabilities
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import GlobalDropout
from dermsearch.nature import OF_PREDICTIONS, Nature
from dermsearch.pretext.base import Batch, Loss, Setting
from dermsearch.settings import Settings

LEADING = "derm"
INPUTS = ("sex", "site", "elevation")
LEAKS = {
    "management": "it was decided with the diagnosis known",
    "level_of_diagnostic_difficulty": "it was judged with the diagnosis known",
}
COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup": 0.1,
        "epochs": 50,
        "batch": 64,
    }
)


Columns = Annotated[tuple[str, ...], BeforeValidator(lambda names: tuple(names) if isinstance(names, list) else names)]


def inputs_alone(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse columns that are no inputs, with the reason."""
    for name in names:
        if name not in INPUTS or names.count(name) > 1:
            why = f"{LEAKS[name]}; name" if name in LEAKS else "must be"
            raise ValueError(f"'{name}' is no input: {why} one or more of {', '.join(INPUTS)}, each once")
    return names


class SystemSettings(Settings):
    """What every system may be told. What is not given is the recipe's."""

    recipe: Literal["own", "common"] = Field("own", description="the system's, or the same for all")
    lr: float | None = Field(None, gt=0, le=10, description="in place of the recipe's")
    epochs: int | None = Field(None, ge=1, le=100_000, description="in place of the recipe's")
    batch: int | None = Field(None, ge=2, le=1_000_000, description="in place of the recipe's")


class MetadataSettings(SystemSettings):
    """Of a system that reads metadata. What was recorded with the diagnosis known gives it away, without any image."""

    metadata: Columns = Field(INPUTS, description="columns that are inputs")

    _refused = field_validator("metadata")(inputs_alone)


@dataclass(frozen=True)
class Shape:
    """What a network is built for."""

    maps: tuple[int, ...]  # channels of an encoder's maps, the largest map first
    strides: tuple[int, ...]  # and how much smaller than the image each is
    width: int  # of an encoder's pooled features
    classes: tuple[int, ...]  # by label
    table: int = 0  # values of metadata
    seed: int = 0

    def dropout(self, p: float, place: str) -> GlobalDropout:
        """A numbered one, which drops others than those of other places."""
        return GlobalDropout(p, zlib.crc32(f"{self.seed}/{place}".encode()))


@dataclass(frozen=True)
class Sight:
    """One image of each case, and what its encoder makes of it: zeros where a case lacks the image."""

    pixels: Tensor  # (b, 3, s, s), normalised; of amfam from 0 to 1
    maps: list[Tensor]  # (b, channels, side, side), the largest first
    features: Tensor  # (b, width), pooled
    there: Tensor  # bool (b,)


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch."""

    groups: dict[str, list[Tensor]]  # by name the logits of every label, (b, classes)
    extras: dict[str, Tensor] = field(default_factory=dict)  # what its loss needs beside them


class LinearHeads(nn.ModuleList):
    """A linear layer for each label."""

    def __init__(self, width: int, classes: Sequence[int]) -> None:
        super().__init__(nn.Linear(width, c) for c in classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [head(x) for head in self]


class System(Fit):
    """A network over both images of a case, trained with both encoders. See the file's head."""

    nature = Nature(needs=frozenset({"images", "pairs"}), metrics=OF_PREDICTIONS)
    own: ClassVar[Mapping[str, Any]] = COMMON  # its recipe
    answer: ClassVar[str]  # the group of logits that it predicts by
    together: ClassVar[bool] = False  # are both images of a case moved alike, in its own recipe?

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        if len(encoders.modalities) != 2:
            raise UserError(f"{self.name}: needs two modalities, such as data.modalities: [derm, clinic]")
        first, second = encoders.modalities
        self.modalities = (second, first) if second == LEADING else (first, second)
        self.columns = {name: self.words(name) for name in getattr(config, "metadata", ())}
        self.levels, shape = self.shape(encoders, setting)
        self.network = self.build(shape)

    def build(self, shape: Shape) -> nn.Module:
        """The network beyond the encoders: (lead, other, table) -> `Outputs`."""
        raise NotImplementedError(type(self).__name__)

    def views(self, size: int) -> tuple[View, View]:
        """Of the leading image and the other one, in its own recipe."""
        return (View(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5),) * 2

    def objective(self, said: Outputs, truth: Tensor, seen: tuple[Sight, Sight], step: int) -> tuple[Tensor, Any]:
        """The loss and its named parts: by default the sum over groups of the mean over labels."""
        losses = {group: mean_loss(logits, truth)[0] for group, logits in said.groups.items()}
        return torch.stack(list(losses.values())).sum(), losses

    @classmethod
    def recipe(cls, config: Any) -> dict[str, Any]:
        given = {name: getattr(config, name) for name in ("lr", "epochs", "batch")}
        recipe = COMMON if config.recipe == "common" else cls.own
        return {**recipe, **{name: value for name, value in given.items() if value is not None}}

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        lead, other = seen = self.look(batches, dict(self.pictures(batches)))
        said = self.network(lead, other, self.table(batches))
        with torch.autocast(lead.features.device.type, enabled=False):
            truth = labels_of(batches, list(self.setting.counts))
            value, parts = self.objective(said, truth, seen, batches[self.modalities[0]].step)
            accuracy = mean_loss(said.groups[self.answer], truth)[1]
            # Several processes wait for a gradient of every weight, of layers behind the maps that are used too.
            value = value + 0.0 * (lead.features.sum() + other.features.sum())
        features = {m: sight.features for m, sight in zip(self.modalities, seen, strict=True)}
        return shares(value, features, {**parts, "accuracy": accuracy})

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        return probabilities(self.said(batches).groups[self.answer], self.setting.counts)

    def said(self, batches: Mapping[str, Batch]) -> Outputs:
        """Of whole images."""
        seen = self.look(batches, {m: batch.whole() for m, batch in batches.items()})
        return self.network(*seen, self.table(batches))

    def pictures(self, batches: Mapping[str, Batch]) -> Iterator[tuple[str, Tensor]]:
        """Views to learn from; those of one case are drawn alike where its images move together."""
        own = self.config.recipe == "own"
        views = self.views(self.setting.size) if own else System.views(self, self.setting.size)
        first = batches[self.modalities[0]]
        for modality, view in zip(self.modalities, views, strict=True):
            batch = batches[modality]
            batch = replace(batch, seed=first.seed) if own and self.together else batch
            yield modality, batch.views([view], "view", again=True)[0]

    def look(self, batches: Mapping[str, Batch], pixels: Mapping[str, Tensor]) -> tuple[Sight, Sight]:
        """What both encoders see in these pictures."""
        lead, other = (self.sight(m, pixels[m], batches[m]) for m in self.modalities)
        return lead, other

    def sight(self, modality: str, pixels: Tensor, batch: Batch) -> Sight:
        """What the encoder of a modality makes of pictures."""
        backbone: Any = self.encoders.backbones[self.encoders.branch_of(modality)]
        maps, there = list[Tensor](), batch.there
        if self.levels:
            last, maps = backbone.forward_intermediates(pixels)
            features = backbone.forward_head(last)
        else:
            features = backbone(pixels)
        features = features.to(torch.promote_types(features.dtype, torch.float32)) * there[:, None]
        return Sight(pixels, [maps[i] * there[:, None, None, None] for i in self.levels], features, there)

    def table(self, batches: Mapping[str, Batch]) -> Tensor:
        """Metadata of the cases, (b, values): a column of words is as many values, zeros where it is not known."""
        batch = batches[self.modalities[0]]
        values, known = batch.table(list(self.columns))
        each = [F.one_hot(values[:, i].long(), n) * known[:, i, None] for i, n in enumerate(self.columns.values())]
        return torch.cat(each, 1).to(values.dtype) if each else values

    def words(self, name: str) -> int:
        """How many a column of metadata has."""
        if name not in self.setting.words:
            known = ", ".join(n for n in INPUTS if n in self.setting.words) or "none: give metadata: []"
            raise UserError(f"{self.name}.metadata: the cases have no column '{name}'; they have {known}")
        return max(1, self.setting.words[name])

    def shape(self, encoders: Encoders, setting: Setting) -> tuple[list[int], Shape]:
        """Which of a backbone's maps are seen, the last of each size, and what the network is built for."""
        one: Any = next(iter(encoders.backbones.values()))
        told = list(one.feature_info) if hasattr(one, "forward_intermediates") else []
        last = {stage["reduction"]: i for i, stage in enumerate(told)}
        levels = sorted(last.values())
        maps, strides = (tuple(told[i][what] for i in levels) for what in ("num_chs", "reduction"))
        classes = tuple(len(each) for each in setting.counts.values())
        return levels, Shape(maps, strides, encoders.dim, classes, sum(self.columns.values()), setting.seed)


def last_map(shape: Shape, name: str, stride: int = 0) -> int:
    """The place of the last map, or of that of a stride; UserError where the encoder has none."""
    if not shape.maps or (stride and stride not in shape.strides):
        raise UserError(f"encoder.name: must make maps{f' of stride {stride}' if stride else ''} for {name}")
    return shape.strides.index(stride) if stride else len(shape.maps) - 1
