"""The contract of a fit: a predictor of labels that is trained on labelled cases, from what its parent hands on.

A fit is a stage of another kind, and a leaf of the tree. One file shows one predictor whole: `Config`, network over
the encoders, loss, recipe, prediction. It is trained by the trainer of pretext tasks, so what `docs/tasks.md` promises
holds for it too: several processes come to what one comes to, and what was killed goes on to the same bits. Its units
are cases, with a batch for each modality.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dermsearch.data.case import column_of
from dermsearch.data.store.pool import CasePool, PairedPool
from dermsearch.errors import first_line
from dermsearch.fit.shipped import SHIPPED
from dermsearch.models.artifact import ENCODERS, PREDICTOR, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import misfit
from dermsearch.nature import OF_PREDICTIONS, Nature
from dermsearch.pretext.base import JOINT, Batch, Loss, Material, Pretext, Setting, Whole
from dermsearch.registry import Registry

FITS = Registry("fit", "dermsearch.protocols", SHIPPED)
ROUND = 8  # a batch of few cases is filled up to a multiple of this, which divides among 2, 4 and 8 processes


class Fit(Pretext[Mapping[str, Batch], dict[str, Loss], Whole]):
    """A predictor of all labels at once. `setting.counts` tells how many training cases each class has."""

    joint = True
    supervised = True
    nature: ClassVar[Nature] = Nature(needs=frozenset({"images"}), metrics=OF_PREDICTIONS)

    def __init__(self, encoders: Encoders, config: Any, setting: Setting) -> None:
        super().__init__()
        self.encoders, self.config, self.setting = encoders, config, setting

    @classmethod
    def recipe(cls, config: Any) -> dict[str, Any]:
        """How it is trained: optimizer, lr, weight_decay, schedule, epochs, batch, as in the `train` of a study."""
        raise NotImplementedError(cls.__name__)

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """The loss of this process's rows, over all labels that are known; `shares` gives it the shape."""
        raise NotImplementedError(type(self).__name__)

    def predict(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """(n, classes) probabilities of every label, on whole images (`batch.whole()`), in evaluation mode."""
        raise NotImplementedError(type(self).__name__)

    def features(self, batches: Mapping[str, Batch], picture: Callable[[Batch], Tensor]) -> dict[str, Tensor]:
        """(b, dim) of each modality's pictures, in single precision at least; zeros where a case lacks the image."""
        found = {m: self.encoders(picture(batch), m) * batch.there[:, None] for m, batch in batches.items()}
        return {m: x.to(torch.promote_types(x.dtype, torch.float32)) for m, x in found.items()}

    @classmethod
    def aside(cls, config: Any) -> float:
        """Share of the training cases, by patient, that is kept from training for `calibrate`."""
        return 0.0

    def shown(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """What `calibrate` is to see of a batch of the cases kept aside, row by row: by default what it predicts."""
        return self.predict(batches)

    def calibrate(self, predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> None:
        """Once, when it is trained: what is `shown` of the cases kept aside, and what they are, -1 where unknown.

        What follows for `predict` is kept in buffers.
        """

    @classmethod
    def batch_of(cls, asked: int, units: int) -> int:
        return min(asked, ROUND * math.ceil(units / ROUND))

    @classmethod
    def pools(cls, given: Material) -> dict[str, CasePool]:
        """By modality, whatever the branches: the same cases in each."""
        g, seen = given, given.encoders.modalities
        return {m: PairedPool(g.cases, m, g.rows, g.device, g.look, seen) for m in seen}

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> dict[str, Fit]:
        return {JOINT: cls(encoders, config, next(iter(told.values())))}

    def handed_on(self) -> dict[str, torch.nn.Module]:
        """The backbones by branch."""
        return dict(self.encoders.backbones.items())

    def hands_on(self) -> dict[str, Part]:
        """The predictor: all that `predictor` needs to make it again."""
        given = self.setting.artifact.items()
        setting = {f.name: getattr(self.setting, f.name) for f in dataclasses.fields(Setting) if f.name != "artifact"}
        config = {
            "fit": self.name,
            "config": self.config.model_dump(mode="json"),
            "encoders": self.encoders.config,
            "setting": {
                **setting,
                **{name: dict(setting[name]) for name in ("classes", "counts", "names", "words")},
                "columns": [dataclasses.asdict(column) for column in setting["columns"]],
            },
            "given": {kind: part.config for kind, part in given if kind != ENCODERS},
        }
        return {PREDICTOR: Part.of(self, config)}


def is_fit(protocol: object) -> bool:
    """Is this protocol trained, rather than a measure?"""
    return isinstance(protocol, type) and issubclass(protocol, Fit)


def predictor(part: Part) -> Fit:
    """The predictor that a fit handed on, on the CPU, in evaluation mode."""
    module = unfilled(part)
    module.load_state_dict(part.state, assign=True)
    return module.eval()


def unfilled(part: Part) -> Fit:
    """The network of that predictor, without its weights."""
    made = part.config
    fit: type[Fit] = FITS.find(made["fit"])
    told = dict(made["setting"])
    told["modalities"] = tuple(told["modalities"])
    told["columns"] = tuple(column_of(column) for column in told.get("columns", ()))
    setting = Setting(**told, artifact={kind: Part(config, {}) for kind, config in made["given"].items()})
    with torch.random.fork_rng(devices=[]):
        return fit(Encoders.empty(**made["encoders"]), fit.Config.model_validate(made["config"]), setting)


def unfit(part: Part, name: str) -> str:
    """How a predictor is none of the fit of that name, in words; empty where it is."""
    try:
        network = unfilled(part)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:  # what makes it is not what a fit wrote
        return f"no network can be made of it: {first_line(error)}"
    if network.name != name:
        return f"it is a {network.name}"
    grown = {n for n, b in network.named_buffers() if not b.numel()}  # calibration fills them: as large as it needs
    found, wanted = ({n: w for n, w in of.items() if n not in grown} for of in (part.state, network.state_dict()))
    return misfit(found, wanted)


def shares(value: Tensor, features: Mapping[str, Tensor], parts: dict[str, Tensor]) -> dict[str, Loss]:
    """One loss as the modalities' even shares in it; `features` are watched for collapse."""
    each = value / len(features)
    return {m: Loss(each, x, {} if i else parts) for i, (m, x) in enumerate(features.items())}


def labels_of(batches: Mapping[str, Batch], names: Sequence[str]) -> Tensor:
    """int64 (b, labels) on the device, -1 where a label is unknown."""
    batch = next(iter(batches.values()))
    return torch.stack([batch.labels(name) for name in names], 1)
