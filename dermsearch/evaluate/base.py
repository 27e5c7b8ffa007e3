"""What a protocol is, and how its predictions become rows of the `scores` table."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from dermsearch.errors import UserError, nearest
from dermsearch.evaluate import metrics
from dermsearch.evaluate.metrics import Measure
from dermsearch.models.artifact import Artifact
from dermsearch.registry import Registry
from dermsearch.settings import Settings as Settings

if TYPE_CHECKING:  # importing this file stays cheap
    import torch

    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.data.store.pool import Look
    from dermsearch.models.encoders import Encoders

UNKNOWN = -1


@dataclass(frozen=True)
class Features:
    """What a frozen encoder says of the cases: extracted once, read by every protocol."""

    train: np.ndarray  # (n_train, d) float32
    heldout: np.ndarray  # (n_heldout, d)
    train_labels: dict[str, np.ndarray]  # label -> class index per case; -1 where unknown
    heldout_labels: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]
    heldout_groups: np.ndarray  # patient of each held-out case, for the bootstrap
    split: str  # "val" or "test"
    columns: Mapping[str, slice] = field(default_factory=dict)  # by modality, where they lie side by side
    train_groups: np.ndarray | None = None  # patient of each training case; None: each its own

    def __post_init__(self) -> None:
        sides = ((self.train, self.train_labels), (self.heldout, self.heldout_labels))
        for matrix, labels in sides:
            if matrix.ndim != 2 or matrix.shape[1] != self.train.shape[1]:
                raise ValueError(f"features are not (cases, {self.train.shape[-1]}): {matrix.shape}")
            if not np.isfinite(matrix).all():
                raise ValueError("features are not finite: the encoder's training diverged")
            for label, values in labels.items():
                if len(values) != len(matrix):
                    raise ValueError(f"{label}: {len(values)} labels for {len(matrix)} cases")
                if len(values) and not UNKNOWN <= values.min() <= values.max() < len(self.classes[label]):
                    raise ValueError(f"{label}: class index out of range")
        if len(self.heldout_groups) != len(self.heldout):
            raise ValueError(f"{len(self.heldout_groups)} patients for {len(self.heldout)} held-out cases")
        if self.train_groups is not None and len(self.train_groups) != len(self.train):
            raise ValueError(f"{len(self.train_groups)} patients for {len(self.train)} training cases")

    def known(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """The training cases with that label known: their features in float64 and their classes."""
        truth = self.train_labels[label]
        keep = truth != UNKNOWN
        return self.train[keep].astype(np.float64), truth[keep]

    def blind(self) -> Features:
        """The same without the held-out truth: what a protocol gets to see."""
        return dataclasses.replace(self, heldout_labels={})


@dataclass(frozen=True)
class Images:
    """Where the features come from, for a protocol that trains on images: what is given here must not be changed."""

    encoders: Encoders
    cases: CaseStore
    train: np.ndarray  # rows of the store, in the order of the features
    heldout: np.ndarray
    look: Look
    device: torch.device
    cast: Callable[[], AbstractContextManager[None]]  # the precision in which encoders run


@dataclass(frozen=True)
class Given:
    """All that a protocol may look at."""

    features: Features
    artifact: Artifact = field(default_factory=dict)  # what the stage hands on
    images: Images | None = None


class Protocol(typing.Protocol):
    """A way to judge encoders: a `Classifier`, or a `Ruler` with measures of its own."""

    name: str
    version: int  # raised when the same settings give other numbers or rows, so that stored scores are not reused

    @property
    def Config(self) -> type[BaseModel]:
        """The protocol's settings: a frozen pydantic model that refuses unknown keys."""


@typing.runtime_checkable
class Classifier(Protocol, typing.Protocol):
    """Learns labels from the training cases and says what the held-out cases are."""

    def predict(self, given: Given, config: Any, seed: int) -> dict[str, np.ndarray]:
        """Class probabilities (n_heldout, n_classes) of every label; the held-out truth is not among the given."""


@typing.runtime_checkable
class Ruler(Protocol, typing.Protocol):
    """Measures the features themselves, without labels."""

    def measure(self, given: Given, config: Any, seed: int) -> dict[str, list[Measure]]:
        """What it finds, by split."""


class _Protocols(dict[str, Any]):
    """By name; a fit is imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        protocol = super().__getitem__(name)
        if isinstance(protocol, str):
            return Registry("fit", "dermsearch.protocols", {name: protocol}).find(name)
        return protocol


# A protocol is one file of this package and one line in its `__init__`.
PROTOCOLS = _Protocols()


def find(name: str) -> Classifier | Ruler:
    """The protocol of that name."""
    if name not in PROTOCOLS:
        raise UserError(f"no protocol '{name}': {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def configure(name: str, config: Mapping[str, Any] | BaseModel | None = None) -> BaseModel:
    """A protocol's checked settings, defaults filled in."""
    allowed = find(name).Config
    try:
        return allowed.model_validate({} if config is None else config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            hint = nearest(key, allowed.model_fields)
            raise UserError(f"protocol '{name}' has no setting '{key}': {hint}") from None
        raise UserError(f"protocol '{name}', setting '{key}': {first['msg']}") from None


def judge(
    features: Features,
    name: str,
    config: Mapping[str, Any] | BaseModel | None = None,
    seed: int = 0,
    artifact: Artifact = MappingProxyType({}),
    images: Images | None = None,
    predicted: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """The `scores` rows of one encoder under one protocol, without stage, curriculum and provenance.

    `predicted` is what a fit says of the held-out cases, which has no other way to judge them.
    """
    protocol, settings = find(name), configure(name, config)
    given = Given(features.blind(), artifact, images)
    if predicted is not None:
        found = {features.split: compare(features, predicted)}
    elif isinstance(protocol, Classifier):
        found = {features.split: compare(features, protocol.predict(given, settings, seed))}
    else:
        found = protocol.measure(given, settings, seed)
    return [_row(m, name, split, seed) for split, measures in found.items() for m in measures]


def compare(features: Features, predicted: Mapping[str, np.ndarray]) -> list[Measure]:
    """What probabilities of the held-out cases are worth, label by label and on the mean."""
    weights, found = metrics.case_weights(features.heldout_groups), list[Measure]()
    judged = np.zeros(len(features.heldout), dtype=bool)
    for label, classes in features.classes.items():
        probabilities = predicted[label]
        if probabilities.shape != (len(judged), len(classes)) or not np.isfinite(probabilities).all():
            raise ValueError(f"{label}: not probabilities of shape (cases, classes)")
        truth = features.heldout_labels[label]
        judged |= truth != UNKNOWN
        found += metrics.measure(label, truth, probabilities, classes, weights)
    return found + metrics.mean_over_labels(found, int(judged.sum()))


def _row(measure: Measure, protocol: str, split: str, seed: int) -> dict[str, Any]:
    value, low, high = metrics.summary(measure.values)
    return {
        "protocol": protocol,
        "split": split,
        "label": measure.label,
        "class": measure.cls,
        "metric": measure.metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": measure.n,
        "seed": seed,
    }
