"""The shipped tasks in small settings, and what `dermsearch.testing` has to train them and to take steps with them."""

from typing import Any

import torch
from torch import Tensor

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import find_task
from dermsearch.pretext.batch import all_features
from dermsearch.testing import small, steps
from dermsearch.testing.small import BATCH, CASES, CPU, ROWS, SIZE, Kept, make_store, same, timeless
from dermsearch.training.precision import autocast
from dermsearch.training.stage import Recipe

__all__ = ["BATCH", "CASES", "CPU", "ROWS", "SIZE", "Kept", "find_task", "make_store", "same", "timeless"]

# Every task joins here, with the settings that suit 48 images and batches of 16.
TASKS: dict[str, dict[str, Any]] = {
    "relative_location": {},
    "moco_v2": {"queue": 32, "out": 16},
    "odc": {"clusters": 4, "small": 5, "recompute": 2, "hidden": 32, "feature": 16},
    "simclr": {"hidden": 32, "out": 16},
    "byol": {"hidden": 32, "out": 16},
    "swav": {"prototypes": 8, "out": 16, "queue": 24, "frozen_epochs": 0, "local": 2},
    "dino": {"out": 16, "hidden": 32, "bottleneck": 8, "local": 2, "frozen_epochs": 0, "momentum_encoder": 0.9},
    "ibot": {"out": 16, "hidden": 32, "bottleneck": 8, "local": 2, "frozen_epochs": 0, "momentum_encoder": 0.9},
    "rotation": {},
    "colorme": {"painting": 0.03},  # the kinks of the decoder magnify rounding at the rates of these tests
    "joint_supervised": {"out": 16},
    "paired_contrast": {"out": 16, "temperature": 0.5},
    "slimp": {"lesions": 4, "width": 16, "out": 16, "temperature": 0.5},
    "pseudo_labels": {"width": 16, "feedforward": 16, "frozen": False},  # frozen ones have tests of their own
}

BACKBONES = {"ibot": "test_vit"}  # of the tasks that want another

torch.set_num_threads(1)  # the machine's other work goes on


def stage(name: str = "") -> small.SmallStage:
    """A task in its small settings."""
    return small.SmallStage(name, TASKS.get(name, {}), BACKBONES.get(name, "test_resnet"))


def recipe(name: str, **train: Any) -> Recipe:
    return stage(name).recipe(**train)


def encoders(task: str = "", modalities: tuple[str, ...] = ("derm",), branches: str = "shared") -> Encoders:
    return stage(task).encoders(modalities, branches)


def train(name: str, store: CaseStore, made: Encoders | None = None, **settings: Any) -> tuple[Encoders, list[Any]]:
    return stage(name).train(store, made, **settings)


class Steps(steps.Steps):
    """Of a task in its small settings."""

    def __init__(self, name: str, store: CaseStore, *given: Any, **more: Any) -> None:
        super().__init__(stage(name), store, *given, **more)


def features(module: torch.nn.Module, pool: CasePool) -> Tensor:
    """Of every image of a pool."""
    return all_features(module, pool, len(pool), SIZE, autocast(CPU, "fp32"), 16)
