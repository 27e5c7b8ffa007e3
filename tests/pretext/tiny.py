"""A small store of random images, the tasks in small settings, and what is needed to take steps with them."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.case import Case
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, Material, find_task
from dermsearch.pretext.batch import all_features, epoch_order
from dermsearch.training import optim
from dermsearch.training.learner import WholeImages
from dermsearch.training.precision import autocast
from dermsearch.training.stage import Learner, Recipe, number_dropout, train_stage

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
    "pseudo_labels": {"width": 16, "feedforward": 16, "frozen": False},  # frozen ones have tests of their own
}
# And a task of another package for the while: DERMSEARCH_TASKS='{"mine": {"width": 32}}', see docs/tasks.md.
TASKS |= json.loads(os.environ.get("DERMSEARCH_TASKS", "{}"))

BACKBONE = "test_resnet"
BACKBONES = {"ibot": "test_vit"}  # of the tasks that want another
CASES, SIZE, BATCH = 48, 32, 16
CPU = torch.device("cpu")
ROWS = np.arange(CASES)

torch.set_num_threads(1)  # the machine's other work goes on


def make_store(
    folder: Path, labels: np.ndarray | None = None, missing: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> CaseStore:
    """48 cases of blurred noise in both modalities. Other labels leave the images as they are."""
    rng = np.random.default_rng(0)
    labels = np.arange(CASES) % 3 if labels is None else labels
    cases = []
    for i in range(CASES):
        coarse = torch.from_numpy(rng.uniform(0, 255, (2, 3, 6, 6)))
        fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 255)
        derm, clinic = fine.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        images = {m: x for m, x in (("derm", derm), ("clinic", clinic)) if i not in missing.get(m, ())}
        cases.append(Case(f"c{i}", f"l{i}", f"p{i}", images, {"diagnosis": int(labels[i])}))
    return write_store(
        folder, cases, {c.case: "train" for c in cases}, {"diagnosis": ("a", "b", "c")}, {"source": "test"}
    )


def recipe(name: str, **train: Any) -> Recipe:
    """The task's own optimiser, for two epochs at a rate that small images bear."""
    task = find_task(name)
    config = task.Config(**TASKS[name]).model_dump()
    given = {"epochs": 2, "batch": BATCH, **task.train_defaults, "lr": 0.02, "warmup": 0.0, "clip": None}
    return Recipe(name, config, {**given, **train}, 7, "fp32")


def encoders(task: str = "", modalities: tuple[str, ...] = ("derm",), branches: str = "shared") -> Encoders:
    """Fresh ones, always the same, of the kind that this task wants: a joint task has a branch for each modality."""
    if task and find_task(task).joint:
        modalities, branches = ("derm", "clinic"), "separate"
    return Encoders.random(BACKBONES.get(task, BACKBONE), modalities, branches, 3)


class Kept:
    """A `Partial` in memory, as bytes: nothing can be shared with the run that goes on."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> dict[str, Any] | None:
        return None if self.data is None else torch.load(io.BytesIO(self.data), weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.data = buffer.getvalue()


def train(name: str, store: CaseStore, made: Encoders | None = None, **settings: Any) -> tuple[Encoders, list[Any]]:
    """Two epochs of a task in this process; the encoders and the history."""
    made = encoders(name) if made is None else made
    history = train_stage(recipe(name, **settings), made, store, ROWS, Kept(), lambda row: None, CPU).history
    return made, history


def timeless(history: list[dict[str, Any]]) -> str:
    """What of a history must come again."""
    drop = ("seconds", "views_per_second", "peak_memory")
    return json.dumps([{k: v for k, v in row.items() if k not in drop} for row in history])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Are the weights equal to the bit?"""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


class Steps:
    """A stage's steps taken by hand, without the trainer."""

    def __init__(
        self, name: str, store: CaseStore, made: Encoders | None = None, begin: bool = True, **settings: Any
    ) -> None:
        self.encoders = encoders(name) if made is None else made
        self.recipe = recipe(name, **settings)
        self.pools = find_task(name).pools(Material(self.encoders, store, ROWS, CPU))
        self.learner = Learner(find_task(name), self.encoders, self.pools, self.recipe).train()
        self.optimizer = optim.build(self.learner, self.recipe.train, self.learner.options())
        self.units = len(next(iter(self.pools.values())))
        self.at = 0
        if begin:
            self.learner.tell("begin", self.whole())
            self.learner.tell("begin_epoch", self.whole(), 0)

    def whole(self) -> WholeImages:
        """What gives outputs on whole images."""
        return WholeImages(self.pools, autocast(CPU, "fp32"))

    def batches(self) -> dict[str, Batch]:
        """The batches of the step that is next."""
        number_dropout(self.learner, self.at)
        chosen = epoch_order(7, self.at, self.units, BATCH, False)
        return {b: Batch(chosen, pool, SIZE, 5, 0, self.at) for b, pool in self.pools.items()}

    def backward(self, model: torch.nn.Module | None = None) -> Tensor:
        """Forward and backward of the next step; the loss of this process's rows."""
        for task in self.learner.each():
            task.before_step(self.at)
        total, self.losses = (self.learner if model is None else model)(self.batches())
        self.optimizer.zero_grad()
        total.backward()
        for task in self.learner.each():
            task.after_backward(self.at)
        return total.detach()

    def finish(self) -> None:
        """The rest of the step."""
        self.optimizer.step()
        self.learner.tell("after_step", self.batches())
        self.at += 1

    def step(self) -> float:
        """One whole step."""
        loss = self.backward()
        self.finish()
        return float(loss)


def features(module: torch.nn.Module, pool: CasePool) -> Tensor:
    """Of every image of a pool."""
    return all_features(module, pool, len(pool), SIZE, autocast(CPU, "fp32"), 16)
