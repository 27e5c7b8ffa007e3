"""What a protocol says of itself, so that nobody asks for one by its name."""

from __future__ import annotations

from dataclasses import dataclass

# What probabilities of labels are worth; named_*: of the class that papers report of each label, such as MEL.
OF_PREDICTIONS = (
    "balanced_accuracy",
    "macro_f1",
    "auc",
    "named_auc",
    "named_recall",
    "named_specificity",
    "named_precision",
)


TARGET = "target"  # among the needs: images of the data set that it is judged on, while another one has the labels


@dataclass(frozen=True)
class Nature:
    """What an evaluator or a fit needs and gives."""

    needs: frozenset[str] = frozenset({"features"})  # of features, images, pairs, heads, masks, tables, target
    metrics: tuple[str, ...] = ()  # that may be asked for as objective
    labels: tuple[str, ...] | None = None  # None: those of the data set, and `mean`
    learns: bool = True  # reads labelled training cases, so that `labelled` and `repeats` mean something
    objective: bool = True  # False where it never looks at an image
