"""What an evaluator is, and how what it says becomes rows of the tables `scores` and `confusions`."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from dermsearch import metrics
from dermsearch.data.domain import SKIN
from dermsearch.errors import UserError, nearest
from dermsearch.evaluate import found
from dermsearch.evaluate.predictions import predictions
from dermsearch.fit.shipped import SHIPPED
from dermsearch.metrics import Measurement
from dermsearch.models.artifact import Artifact
from dermsearch.nature import OF_PREDICTIONS, Nature
from dermsearch.registry import Registry
from dermsearch.settings import Settings as Settings

if TYPE_CHECKING:  # importing this file stays cheap
    import torch

    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.data.store.pool import Look
    from dermsearch.models.encoders import Encoders

UNKNOWN = -1
PROTOCOLS = Registry(
    "protocol",
    "dermsearch.protocols",
    {
        "knn": "dermsearch.evaluate.knn:Knn",
        "linear": "dermsearch.evaluate.linear:Linear",
        "linear_handover": "dermsearch.evaluate.handover:LinearHandover",
        **SHIPPED,  # fits: their predictions are judged by `compare`
        "metadata_only": "dermsearch.evaluate.metadata_only:MetadataOnly",
        "pairs": "dermsearch.evaluate.pairs:Pairs",
        "retrieval": "dermsearch.evaluate.retrieval:Retrieval",
        "own_table": "dermsearch.evaluate.own_table:OwnTable",
        "attention": "dermsearch.evaluate.attention:Attention",
        "majority": "dermsearch.evaluate.guess:Majority",
        "stratified": "dermsearch.evaluate.guess:Stratified",
    },
)


@dataclass(frozen=True)
class Features:
    """What a frozen encoder says of the cases: extracted once, read by every evaluator."""

    train: np.ndarray  # (n_train, d) float32
    heldout: np.ndarray  # (n_heldout, d)
    train_labels: dict[str, np.ndarray]  # label -> class index per case; -1 where unknown
    heldout_labels: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]
    heldout_groups: np.ndarray  # patient of each held-out case, for the bootstrap
    split: str  # "val" or "test"
    columns: Mapping[str, slice] = field(default_factory=dict)  # by modality, where they lie side by side
    train_groups: np.ndarray | None = None  # patient of each training case; None: each its own
    named: Mapping[str, str] = field(default_factory=lambda: SKIN.named)  # the class of a label that papers report
    heldout_cases: np.ndarray | None = None  # their names; None: predictions are not kept

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

    @property
    def whose(self) -> np.ndarray:
        """The patient of each training case, where none is told each its own."""
        return np.arange(len(self.train)) if self.train_groups is None else self.train_groups

    def known(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """The training cases with that label known: their features in float64 and their classes."""
        truth = self.train_labels[label]
        keep = truth != UNKNOWN
        return self.train[keep].astype(np.float64), truth[keep]

    def blind(self) -> Features:
        """The same without the held-out truth: what an evaluator gets to see."""
        return dataclasses.replace(self, heldout_labels={})


@dataclass(frozen=True)
class Images:
    """Where the features come from, for an evaluator that looks at images: what is given here must not be changed."""

    encoders: Encoders
    cases: CaseStore
    train: np.ndarray  # rows of the store, in the order of the features
    heldout: np.ndarray
    look: Look
    device: torch.device
    cast: Callable[[], AbstractContextManager[None]]  # the precision in which encoders run
    metadata: tuple[str, ...] = ()  # columns of the cases that may be read


@dataclass(frozen=True)
class Given:
    """All that an evaluator may look at."""

    features: Features
    artifact: Artifact = field(default_factory=dict)  # what the stage hands on
    images: Images | None = None


@dataclass(frozen=True)
class Judgement:
    """What one evaluator says of one artifact; who was judged, on what and from which labels, its reader knows."""

    rows: list[dict[str, Any]]  # split, label, class, metric, value, ci_low, ci_high, n
    confusions: list[dict[str, Any]]  # split, label, truth, predicted, count, where that is not 0
    predictions: pa.Table | None = None  # label, case, group, truth, class, probability


class Evaluator(typing.Protocol):
    """A way to judge artifacts: a `Classifier`, a `Finder`, or a `Ruler` with measures of its own.

    It is made without arguments.
    """

    name: str
    version: int  # raised when the same settings give other numbers or rows, so that stored scores are not reused
    nature: Nature

    @property
    def Config(self) -> type[BaseModel]:
        """The evaluator's settings: a frozen pydantic model that refuses unknown keys."""


@typing.runtime_checkable
class Classifier(Evaluator, typing.Protocol):
    """Learns labels from the training cases and says what the held-out cases are."""

    def predict(self, given: Given, config: Any, seed: int) -> Mapping[str, np.ndarray]:
        """Class probabilities (n_heldout, n_classes) of every label; the held-out truth is not among the given."""


@typing.runtime_checkable
class Finder(Evaluator, typing.Protocol):
    """Finds training cases for the held-out cases."""

    def find(self, given: Given, config: Any, seed: int) -> Mapping[str, np.ndarray]:
        """Places among the training cases (n_heldout, 10) for every label, the best first; -1 where there is none."""


@typing.runtime_checkable
class Ruler(Evaluator, typing.Protocol):
    """Measures the features themselves, without labels."""

    def measure(self, given: Given, config: Any, seed: int) -> Iterable[tuple[str, Measurement]]:
        """What it finds, each with the split that it is of."""


def reads_tables(protocol: Any, config: Mapping[str, Any]) -> bool:
    """Does it read metadata in these settings? Then their columns are in its judgement's key."""
    return "tables" in protocol.nature.needs or config.get("features", "image") not in ("image", "tokens")


def configure(name: str, config: Mapping[str, Any] | BaseModel | None = None) -> BaseModel:
    """A protocol's checked settings, defaults filled in."""
    allowed = PROTOCOLS.find(name).Config
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
) -> Judgement:
    """What an evaluator says of encoders by their features, of what is handed on beside them, or of its images."""
    evaluator, settings = PROTOCOLS.find(name)(), configure(name, config)
    given = Given(features.blind(), artifact, images)
    if isinstance(evaluator, Ruler):
        return Judgement([_row(split, m) for split, m in evaluator.measure(given, settings, seed)], [])
    if isinstance(evaluator, Finder):
        return Judgement([_row(features.split, m) for m in _found(features, evaluator.find(given, settings, seed))], [])
    predicted = evaluator.predict(given, settings, seed)
    truth, groups = features.heldout_labels, features.heldout_groups
    return compare(truth, features.classes, groups, predicted, features.split, features.named, features.heldout_cases)


def _found(features: Features, places: Mapping[str, np.ndarray]) -> Iterator[Measurement]:
    whose, owners = features.heldout_groups, features.train_groups
    owners = np.full(len(features.train), -1) if owners is None else owners
    for label, each in places.items():
        if each.shape != (len(features.heldout), max(found.KS)) or each.max(initial=-1) >= len(features.train):
            raise ValueError(f"{label}: not places of training cases of shape (cases, {max(found.KS)})")
    yield from found.measures(features.heldout_labels, features.train_labels, features.classes, whose, owners, places)


def compare(
    truth: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    groups: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    split: str,
    named: Mapping[str, str] = SKIN.named,
    cases: np.ndarray | None = None,
    shown: bool = False,
) -> Judgement:
    """What predicted probabilities are worth, label by label and on the mean. All but `split` is by label.

    `groups` are the cases' patients, `named` the classes whose numbers are averaged over the labels; where the cases
    have names, what was said of each is kept. Where it is `shown`, how often each class is predicted stands beside.
    """
    rows = [_row(split, m) for m in _measures(truth, classes, groups, predicted, named)]  # one by one: each is large
    if shown:
        rows += [_row(split, m) for m in metrics.predicted_shares(truth, classes, predicted, groups)]
    confusions = [
        {"split": split, "label": label, "truth": names[true], "predicted": names[taken], "count": count}
        for label, names in classes.items()
        for true, taken, count in metrics.confusion(truth[label], predicted[label])
    ]
    said = None if cases is None else predictions(truth, classes, groups, predicted, cases)
    return Judgement(rows, confusions, said)


def _measures(
    truth: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    groups: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    named: Mapping[str, str],
) -> Iterator[Measurement]:
    weights, averaged = metrics.case_weights(groups), list[Measurement]()
    judged = np.zeros(len(groups), dtype=bool)
    for label, names in classes.items():
        probabilities = predicted[label]
        if probabilities.shape != (len(groups), len(names)):
            raise ValueError(f"{label}: not probabilities of shape (cases, classes)")
        if not np.isfinite(probabilities).all():
            raise UserError(f"{label}: predictions are not finite: the weights are not, or overflow; training diverged")
        judged |= truth[label] != UNKNOWN
        for m in metrics.measure(label, truth[label], probabilities, names, weights):
            if m.cls in ("", named.get(label)):
                averaged.append(m)
            yield m
    yield from metrics.mean_over_labels(averaged, int(judged.sum()), named)


def _row(split: str, measure: Measurement) -> dict[str, Any]:
    value, low, high = metrics.summary(measure.values)
    return {
        "split": split,
        "label": measure.label,
        "class": measure.cls,
        "metric": measure.metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": measure.n,
    }


def check_objective(nature: Nature, protocol: str, metric: str, label: str) -> None:
    """Refuse an objective that a protocol of this nature cannot have; `protocol` is what the message calls it."""
    if not nature.objective:
        raise UserError(f"objective.protocol: '{protocol}' never looks at an image, so it cannot tell encoders apart")
    own = nature.metrics or OF_PREDICTIONS
    if metric not in own:
        others = [] if nature.metrics else _others("metrics", metric)
        wrong = f"must be {_any_of(own)} for protocol '{protocol}', not '{metric}'"
        if others:
            wrong = f"'{metric}' goes with protocol {_any_of(others)} only, not with '{protocol}'"
        raise UserError(f"objective.metric: {wrong}")
    if nature.labels is not None and label not in nature.labels:
        raise UserError(f"objective.label: must be {_any_of(nature.labels)} for protocol '{protocol}', not '{label}'")
    others = [] if nature.labels else _others("labels", label)
    if others:
        raise UserError(f"objective.label: '{label}' goes with protocol {_any_of(others)} only, not with '{protocol}'")
    if metric.startswith("named_") and label != metrics.MEAN_LABEL:
        raise UserError(f"objective.label: must be {metrics.MEAN_LABEL} for metric '{metric}', not '{label}'")


def _others(field: str, value: str) -> list[str]:
    """The protocols that have a metric or a label of their own, in quotes."""
    return [f"'{name}'" for name, each in PROTOCOLS.loadable() if value in (getattr(each.nature, field) or ())]


def _any_of(names: Sequence[str]) -> str:
    """As a message lists them: a; a or b; one of a, b, c."""
    return " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}"
