"""What adaptations share: labelled cases of one data set, images alone of another, on which they are judged.

A line of `downstream` such as `dcan@theirs: {source: ours}` learns the labels of `ours` and is judged on `theirs`, of
whose training cases it sees the images. Their labels never reach it: the pool that it is given has none.

Phases  the source alone for `epochs`, the same for all methods; then `adapt_epochs` at `adapt_rate` times the rate, in
        which images of both come in batches of equal halves. A method that aligns nothing goes on with the source, so
        that all take as many steps.
Statistics  of BatchNorm. `each`: either half by its own, and when it is trained those of all the target's images stand
        in the network; `frozen`: the source's of the first phase, as the released code has it; `source`: the target is
        never looked at.
Predict the target's whole images. No epoch is chosen: that would take the target's labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.pool import CasePool, PairedPool
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.fit.base import Fit, labels_of, shares
from dermsearch.fit.heads import Heads, balance, mean_loss, probabilities
from dermsearch.models.alignment import Doubled, Gate, entropy
from dermsearch.models.artifact import HEADS
from dermsearch.models.encoders import Encoders
from dermsearch.nature import OF_PREDICTIONS, TARGET, Nature
from dermsearch.pretext.base import Batch, Loss, Material, Setting, Whole
from dermsearch.settings import Settings

OTHER = "target_"  # before a modality: the target's pool of it
Statistics = Literal["each", "frozen", "source"]


class AdaptationSettings(Settings):
    """What every adaptation may be told."""

    source: str = Field("", description="the data set that has the labels; if empty the study's first")
    lr: float = Field(1e-3, gt=0, le=10, description="rate of AdamW while the source alone is learnt")
    weight_decay: float = Field(0.01, ge=0, le=100, description="AdamW's")
    epochs: int = Field(30, ge=1, le=100_000, description="passes over the source before anything is aligned")
    adapt_epochs: int = Field(20, ge=0, le=100_000, description="passes after that")
    adapt_rate: float = Field(0.1, gt=0, le=1, description="of the rate, in those")
    batch: int = Field(64, ge=4, le=1_000_000, description="cases of the source in a step; as many of the target")
    crop: float = Field(0.5, gt=0, le=1, description="the smallest random crop, as a share of the image's area")
    balanced: bool = Field(True, description="weight classes inversely to their frequency in the source")


class Blind(PairedPool):
    """Cases whose labels are not known here, whatever the store says."""

    def labels(self, name: str, units: np.ndarray) -> np.ndarray:
        """None is known."""
        return np.full(len(np.asarray(units)), -1, np.int64)


class Adaptation(Fit):
    """Encoders and heads that learn from a source and are judged on a target. One file shows one method."""

    nature: ClassVar[Nature] = Nature(needs=frozenset({"images", TARGET}), metrics=OF_PREDICTIONS)
    aligns: ClassVar[bool] = False  # does it look at the target while it learns?

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__(encoders, config, setting)
        self.view = View(setting.size, scale=(config.crop, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
        self.width = encoders.dim * len(encoders.modalities)
        self.heads = Heads(self.width, setting.counts, setting.artifact.get(HEADS), setting.seed)
        self.weights = balance(setting.counts) if config.balanced else None
        self.steps_before = setting.steps * config.epochs // (config.epochs + config.adapt_epochs)
        if self.statistics() == "each" and not self.aligns and not self.norms():
            raise UserError(f"{self.name}: needs an encoder with BatchNorm, whose statistics it takes from the target")

    def statistics(self) -> Statistics:
        """Whose statistics the network has."""
        return "each"

    def align(self, source: Tensor, target: Tensor, truth: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What beside the source's cross-entropy is to become small, of this process's rows; and its named parts.

        `source` and `target` are features (b, width), `truth` the source's classes (b, labels), -1 where unknown.
        """
        return source.sum() * 0.0, {}

    def logits(self, features: Tensor) -> list[Tensor]:
        """Of every label, as the target is predicted."""
        return self.heads(features)

    @classmethod
    def recipe(cls, config: Any) -> dict[str, Any]:
        total = config.epochs + config.adapt_epochs
        return {
            "optimizer": "adamw",
            "lr": config.lr,
            "weight_decay": config.weight_decay,
            "schedule": "step",
            "milestones": (config.epochs / total,) if config.adapt_epochs else (),
            "factor": config.adapt_rate,
            "epochs": total,
            "batch": config.batch,
        }

    @classmethod
    def pools(cls, given: Material) -> dict[str, CasePool]:
        """Those of every fit, and where it aligns the target's, without labels."""
        found, seen, other = super().pools(given), given.encoders.modalities, given.target
        if other is not None and cls.aligns:
            rows, about = other.rows, (given.device, other.look, seen)
            found |= {OTHER + m: Blind(other.cases, m, rows, *about) for m in seen}
        return found

    @classmethod
    def paced(cls, pools: Mapping[str, CasePool]) -> Mapping[str, CasePool]:
        """The source's: who looks at a large target has no more steps than who does not."""
        return {name: pool for name, pool in pools.items() if not name.startswith(OTHER)}

    def enter_epoch(self, epoch: int) -> None:
        """The second phase leaves frozen statistics as they are."""
        if epoch >= self.config.epochs and self.statistics() == "frozen":
            for norm in self.norms():
                norm.eval()

    def begin_epoch(self, epoch: int, features: Whole) -> None:
        """The second phase begins with gates alike."""
        if epoch == self.config.epochs:
            for gate in self.gates():
                gate.begin()

    def progress(self, step: int) -> float:
        """How far the second phase is, from 0 to 1."""
        return (step - self.steps_before) / max(1, self.setting.steps - self.steps_before)

    def gates(self) -> list[Gate | Doubled]:
        """Those of the network."""
        return [m for m in self.modules() if isinstance(m, Gate | Doubled)]

    def norms(self) -> list[nn.Module]:
        """The encoders' BatchNorms."""
        return [m for m in self.encoders.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    @contextmanager
    def seeing(self, target: bool) -> Iterator[None]:
        """Gates look at this domain; afterwards at the target, as for ever after training."""
        for gate in self.gates():
            gate.on_target = target
        try:
            yield
        finally:
            for gate in self.gates():
                gate.on_target = True

    def joined(self, batches: Mapping[str, Batch], picture: Callable[[Batch], Tensor]) -> Tensor:
        """(b, width): the modalities' features side by side."""
        return torch.cat(list(self.features(batches, picture).values()), 1)

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        of_source = {m: batches[m] for m in self.setting.modalities}
        of_target = {m: batches[OTHER + m] for m in self.setting.modalities if OTHER + m in batches}
        batch = next(iter(of_source.values()))
        with self.seeing(target=False):
            features = self.features(of_source, lambda b: b.view(self.view, "view"))
        joined, parts = torch.cat(list(features.values()), 1), dict[str, Tensor]()
        with torch.autocast(joined.device.type, enabled=False):
            truth = labels_of(of_source, list(self.setting.counts))
            value, accuracy = mean_loss(self.heads(joined), truth, self.weights)
        if of_target and batch.epoch >= self.config.epochs:
            with self.seeing(target=True):
                # A target of few images fills a batch by some again, which are to look different.
                other = self.joined(of_target, lambda b: b.views([self.view], "view", again=True)[0])
            with torch.autocast(joined.device.type, enabled=False):
                more, parts = self.align(joined, other, truth, batch)
                value = value + more
                parts |= told_of([x.softmax(1) for x in self.logits(other.detach())])
        watched = features | {OTHER + m: features[m] for m in of_target}
        # Several processes wait for a gradient of every weight, of those that only the second phase trains too.
        value = value + 0.0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
        return shares(value, watched, {"accuracy": accuracy, **parts})

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        joined = self.joined(batches, Batch.whole)
        with torch.autocast(joined.device.type, enabled=False):
            return probabilities(self.logits(joined), self.setting.counts)

    def meets(self) -> bool:
        """Are the target's images to be shown to it when it is trained?"""
        return self.statistics() == "each" and bool(self.norms())

    @contextmanager
    def meeting(self) -> Iterator[Callable[[Mapping[str, Batch]], dict[str, Tensor]]]:
        """Takes up the statistics of what it is shown in here, in place of those that it has."""
        momenta = {norm: norm.momentum for norm in self.norms()}
        for norm in momenta:
            norm.reset_running_stats()  # type: ignore[operator]
            norm.momentum = None  # type: ignore[assignment]  # the mean over all batches
            norm.train()

        def shown(batches: Mapping[str, Batch]) -> dict[str, Tensor]:
            self.features(batches, Batch.whole)
            return {}

        yield shown
        for norm, momentum in momenta.items():
            norm.momentum = momentum
            norm.eval()


def told_of(predicted: Sequence[Tensor]) -> dict[str, Tensor]:
    """How much of a batch of the target the class has that has most, and how uncertain it is: means over labels.

    A share near 1 and an entropy near 0 are a collapse to one class.
    """
    predicted = [p.detach() for p in predicted]
    said = [p.argmax(1, keepdim=True) == torch.arange(p.shape[1], device=p.device) for p in predicted]
    counts = [world.reduce_sum(each.sum(0).float()) for each in said]
    share = torch.stack([n.max() / n.sum() for n in counts]).mean()
    return {"target_share": share, "target_entropy": torch.stack([entropy(p) for p in predicted]).mean()}
