"""SSD-KD: a student learns from a teacher how the turned copies of images are related. (Wang et al. 2023)

Reads labels, so it may only come last in a curriculum, and stands among what is supervised.

Teacher encoders with heads for all labels: copies of those handed on, or of a file's, trained on the labels in the
        first epochs of the stage (`teaching`, a share of them); then they stay as they are, while a head on their
        features learns to tell from which image a turned copy comes (`rotating`); then the student learns.
Student the encoders that are handed on, with heads of its own; they alone are handed on again.
Views   a crop and a flip, four times, turned by 0, 90, 180 and 270 degrees: both images of a case alike.
Loss    six terms, means over labels or images, with the authors' weights:
        0.1 x classes, weighted against their frequency; 0.9 x the teacher's answers on the upright copies and 2.7 x on
        the turned ones, at temperature 4; 10 x the order of cosines of turned copies to all upright ones, at 0.5, where
        the teacher is right, and three quarters of where it is not; 25 x distances and 50 x angles of all copies'
        features; 1000 x Gram matrices of the last maps.
Paired  cases have two images and eight labels, where the authors have one of each: the last three terms are of each
        image, averaged. 1000 is for maps of 7 x 7 with 2048 channels: see `gram`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.models import distil
from dermsearch.models.encoders import backbone
from dermsearch.models.heads import mlp
from dermsearch.models.weights import read_weights
from dermsearch.pretext.base import Batch, JointTask, Loss, Setting, Settings
from dermsearch.words import many

COPIES = 4
TEACHING, ROTATING, LEARNING = range(3)  # what learns in an epoch: the teacher, its rotation head, the student


class SSDKD(JointTask):
    """Self-supervised diverse knowledge distillation, of pairs."""

    name = "ssd_kd"
    version = 2
    supervised = True
    contrasts = True
    train_defaults: ClassVar = {
        "optimizer": "sgd",
        "lr": 1e-3,
        "lr_batch": 32,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "schedule": "constant",
        "warmup": 0.0,
    }

    class Config(Settings):
        """Weights of the terms, the authors'. `file` holds the teacher's backbone; `sha256` says which file it is."""

        teacher: str = Field("", description="a model of timm; the student's own where empty")
        file: str = Field("", description="with the teacher's weights; the student's own start where empty")
        sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="of the file")
        teaching: float = Field(0.4, ge=0, lt=1, description="share of the epochs in which the teacher learns")
        rotating: float = Field(0.2, ge=0, lt=1, description="share in which its rotation head does")
        classes: float = Field(0.1, ge=0, le=1e6)  # weight of the labels
        answers: float = Field(0.9, ge=0, le=1e6)  # weight of the teacher's answers on upright copies
        turned: float = Field(2.7, ge=0, le=1e6)  # weight of the answers on turned copies
        similarity: float = Field(10.0, ge=0, le=1e6)  # weight of the order in which copies are alike
        distances: float = Field(25.0, ge=0, le=1e6)  # weight of distances within a batch
        angles: float = Field(50.0, ge=0, le=1e6)  # weight of angles within a batch
        gram: float = Field(1000.0, ge=0, le=1e9)  # weight of how channels go together
        temperature: float = Field(4.0, gt=0, le=1000)  # of the answers
        sharpness: float = Field(0.5, gt=0, le=1000)  # the temperature of the similarities

    def __init__(self, backbones: nn.ModuleDict, config: Any, setting: Setting) -> None:
        super().__init__(backbones, config, setting)
        sizes = [len(each) for each in setting.counts.values()]
        self.view = View(setting.size, scale=(0.7, 1.0), flip=0.5, jitter=(0.2, 0.2, 0.2, 0.05), jitter_p=0.5)
        self.student = ClassHeads(len(backbones) * setting.dim, sizes)
        self.teachers = nn.ModuleDict(teachers(backbones, config, setting.encoder))
        first: Any = next(iter(self.teachers.values()))
        width = getattr(first, "head_hidden_size", first.num_features)
        own: Any = next(iter(backbones.values()))
        self.teacher = ClassHeads(len(backbones) * width, sizes)
        self.rotation = nn.ModuleDict({b: mlp(width, width, width) for b in backbones})
        self.own_rotation = nn.ModuleDict({b: mlp(setting.dim, setting.dim, setting.dim) for b in backbones})
        self.widen = nn.ModuleDict({b: widened(own.num_features, first.num_features) for b in backbones})
        self.weights = [torch.tensor([sum(each) / max(1, n) for n in each]) for each in setting.counts.values()]
        self.ends = before_student(config, setting.epochs)
        self.phase = LEARNING
        for never, module in ((not self.ends[0], (self.teachers, self.teacher)), (not self.ends[1], (self.rotation,))):
            for each in module if never else ():
                each.requires_grad_(False)

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """The student needs epochs of its own, and a file a name and a fingerprint."""
        epochs = setting.epochs
        if config.teaching + config.rotating >= 1 or sum(before_student(config, epochs)) >= epochs:
            shares = f"{config.teaching} + {config.rotating} of {many(epochs, 'epoch')}, rounded to whole ones"
            raise UserError(f"teaching: must leave epochs to the student, not {shares}")
        if bool(config.file) != bool(config.sha256):
            raise UserError("sha256: goes with file, and says which file it is; give both")
        if setting.batch < 2:
            raise UserError(f"batch: must be at least 2, for an order of similarity, not {setting.batch}")

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Four copies, forward and backward through the student, and forward through the teacher."""
        return (1 - config.teaching - config.rotating) * COPIES * 4 / 3 + config.teaching + config.rotating * COPIES / 3

    def enter_epoch(self, epoch: int) -> None:
        self.phase = TEACHING if epoch < self.ends[0] else ROTATING if epoch < sum(self.ends) else LEARNING
        self.train(self.training)

    def train(self, mode: bool = True) -> SSDKD:
        """Networks that do not learn are in evaluation mode: their statistics do not move."""
        super().train(mode)
        self.teachers.train(mode and self.phase == TEACHING)
        self.backbones.train(mode and self.phase == LEARNING)
        return self

    def learning(self) -> list[nn.Module]:
        """What learns in this epoch."""
        of: dict[int, list[nn.Module]] = {
            TEACHING: [self.teachers, self.teacher],
            ROTATING: [self.rotation],
            LEARNING: [self.backbones, self.student, self.own_rotation, self.widen],
        }
        return of[self.phase]

    def after_backward(self, step: int) -> None:
        """What does not learn loses its gradient, which is zero but would be decayed."""
        kept = {id(p) for module in self.learning() for p in module.parameters()}
        for p in self.parameters():
            if id(p) not in kept:
                p.grad = None

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        if self.phase == TEACHING:
            value, parts, features = self.teach(batches)
        elif self.phase == ROTATING:
            value, parts, features = self.rotate(batches)
        else:
            value, parts, features = self.learn(batches)
        # Several processes wait for a gradient of every weight.
        value = value + 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
        each = value / len(batches)
        return {b: Loss(each, features[b], {} if i else parts) for i, b in enumerate(batches)}

    def teach(self, batches: Mapping[str, Batch]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The teacher learns the labels."""
        features = {b: self.teachers[b](batch.view(self.view, "0")) for b, batch in batches.items()}
        value = distil.weighted_classes(self.teacher(joined(features, batches)), self.truth(batches), self.weights)
        return value, {"teacher": value}, features

    def rotate(self, batches: Mapping[str, Batch]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """A head on the teacher learns from which image a copy comes."""
        copies = {b: self.copies(batch) for b, batch in batches.items()}
        with torch.no_grad():
            rows = {b: self.teachers[b](x).float() for b, x in copies.items()}
        heads = {b: gathered(by_case(self.rotation[b](x))) for b, x in rows.items()}
        value = torch.stack([distil.own_original(distil.cosines(x)) for x in heads.values()]).mean()
        return value, {"rotation": value}, {b: by_case(x)[:, 0] for b, x in rows.items()}

    def learn(self, batches: Mapping[str, Batch]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The student learns from labels and teacher."""
        copies, c = {b: self.copies(batch) for b, batch in batches.items()}, self.config
        with torch.no_grad():
            theirs = {b: look(self.teachers[b], x) for b, x in copies.items()}
            told = self.teacher(joined({b: x for b, (_, x) in theirs.items()}, batches))
        ours = {b: look(self.backbones[b], x) for b, x in copies.items()}
        found = self.student(joined({b: x for b, (_, x) in ours.items()}, batches))
        upright = len(found[0]) // COPIES
        terms: dict[str, list[Tensor]] = {name: [] for name in ("answers", "turned", *self.of_images())}
        for x, t in zip(found, told, strict=True):
            terms["answers"].append(distil.answers(x[:upright], t[:upright], c.temperature))
            terms["turned"].append(distil.answers(x[upright:], t[upright:], c.temperature))
        for b in batches:
            with torch.autocast(copies[b].device.type, enabled=False):
                (map_s, x), (map_t, t) = ours[b], theirs[b]
                with torch.no_grad():
                    taught = distil.cosines(gathered(by_case(self.rotation[b](t))))
                alike = distil.cosines(gathered(by_case(self.own_rotation[b](x))))
                terms["similarity"].append(distil.similarity(alike, taught, c.sharpness))
                apart, between = distil.relational(*(gathered(by_case(y)).flatten(0, 1) for y in (x, t)))
                terms["distances"].append(apart)
                terms["angles"].append(between)
                terms["gram"].append(distil.gram_error(self.widen[b](map_s), map_t))
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        logits = [x[:upright] for x in found]
        means["classes"] = distil.weighted_classes(logits, self.truth(batches), self.weights)
        parts = {name: getattr(c, name) * value for name, value in means.items()}
        return torch.stack(list(parts.values())).sum(), parts, {b: by_case(x)[:, 0] for b, (_, x) in ours.items()}

    @staticmethod
    def of_images() -> tuple[str, ...]:
        """The terms that each image has by itself."""
        return ("similarity", "distances", "angles", "gram")

    def copies(self, batch: Batch) -> Tensor:
        """(4 b, 3, side, side): all upright, then turned by a quarter, a half and three quarters."""
        return torch.cat([torch.rot90(batch.view(self.view, str(r)), r, (2, 3)) for r in range(COPIES)])

    def truth(self, batches: Mapping[str, Batch]) -> Tensor:
        """(b, labels), -1 where unknown."""
        first = next(iter(batches.values()))
        return torch.stack([first.labels(label) for label in self.setting.counts], 1)


class ClassHeads(nn.ModuleList):
    """A linear layer for each label, in single precision."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__(nn.Linear(width, size) for size in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return [head(x) for head in self]


def before_student(config: Any, epochs: int) -> tuple[int, int]:
    """In how many epochs the teacher learns, then its rotation head."""
    return round(config.teaching * epochs), round(config.rotating * epochs)


def teachers(backbones: nn.ModuleDict, config: Any, student: str) -> dict[str, nn.Module]:
    """By branch: copies of the student's as they are handed on, or another model's, from a file or from nothing."""
    name = config.teacher
    if not config.file:
        return {b: backbone(name) if name else copy.deepcopy(own) for b, own in backbones.items()}
    path = Path(config.file).expanduser()
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none: there is no such file"
    if found != config.sha256:
        raise UserError(f"ssd_kd.sha256: '{config.file}' has {found}, not {config.sha256}")
    fields = "ssd_kd.file", "ssd_kd.teacher" if name else "encoder.name"
    made, weights = {}, read_weights(config.file, name or student, fields=fields)
    for b, own in backbones.items():
        made[b] = backbone(name) if name else copy.deepcopy(own)
        made[b].load_state_dict(weights)
    return made


def widened(own: int, wide: int) -> nn.Module:
    """What takes the student's last map to as many channels as the teacher's has."""
    return nn.Sequential(nn.Conv2d(own, wide, 1), nn.BatchNorm2d(wide), nn.ReLU())


def look(network: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The last map and pooled features of pictures, in single precision at least.

    A MobileNet widens its last stage's map once more before it pools: that is its last one, as the authors have it.
    """
    last, maps = network.forward_intermediates(pixels)
    found = maps[-1] if maps[-1].shape[1] == network.num_features else last
    features = network.forward_head(last)
    least = torch.promote_types(found.dtype, torch.float32)
    return found.to(least), features.to(least)


def joined(features: Mapping[str, Tensor], batches: Mapping[str, Batch]) -> Tensor:
    """Both images' features side by side, zeros where a case lacks one."""
    found = []
    for b, x in features.items():
        there = batches[b].there
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        found.append(x * there.repeat(len(x) // len(there))[:, None])
    return torch.cat(found, 1)


def by_case(rows: Tensor) -> Tensor:
    """(4 b, d) of all copies -> (b, 4, d)."""
    return rows.unflatten(0, (COPIES, -1)).transpose(0, 1)


def gathered(rows: Tensor) -> Tensor:
    """Of the global batch, in single precision at least."""
    return world.gather_with_gradient(rows.to(torch.promote_types(rows.dtype, torch.float32)).contiguous())
