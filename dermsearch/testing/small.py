"""A small store of random images, and stages that are trained on it in seconds."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from dermsearch.data.case import Case, columns
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import find_task
from dermsearch.training.stage import Recipe, Report, train_stage

CASES, SIZE, BATCH = 48, 32, 16
COLUMNS = (*columns("patient", ["age"], ["sex"]), *columns("lesion", ["diameter"], ["site"]))
CPU = torch.device("cpu")
ROWS = np.arange(CASES)
OF_THE_RUN = ("seconds", "images_per_second", "peak_memory")


def make_store(
    folder: Path,
    labels: np.ndarray | None = None,
    missing: Mapping[str, Sequence[int]] = MappingProxyType({}),
    masked: bool = False,
) -> CaseStore:
    """48 cases of blurred noise in both modalities, four of each patient. Other labels leave the images as they are.

    Of the metadata the diameter follows the picture; some are missing. `masked`: a mask covers the left half.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(CASES) % 3 if labels is None else labels
    cases = []
    for i in range(CASES):
        coarse = torch.from_numpy(rng.uniform(0, 255, (2, 3, 6, 6)))
        fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 255)
        derm, clinic = fine.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        images = {m: x for m, x in (("derm", derm), ("clinic", clinic)) if i not in missing.get(m, ())}
        own: dict[str, float | str | None] = {"diameter": float(derm.mean()), "site": ("arm", "back", "leg")[i * i % 3]}
        own |= {"age": 20.0 + 5 * (i // 4), "sex": ("female", "male")[i // 4 % 2]}
        told = {name: value for name, value in own.items() if (i + len(name)) % 7}
        mask = np.repeat([[255, 0]], SIZE // 2, axis=1).repeat(SIZE, axis=0).astype(np.uint8) if masked else None
        cases.append(Case(f"c{i}", f"l{i}", f"p{i // 4}", images, {"diagnosis": int(labels[i])}, told, mask))
    splits, classes = {c.case: "train" for c in cases}, {"diagnosis": ("a", "b", "c")}
    return write_store(folder, cases, splits, classes, {"source": "test"}, COLUMNS)


class Kept:
    """A `Partial` in memory, as bytes: nothing can be shared with the run that goes on.

    Due after every epoch, or after every `step`; ends a run with `Interrupted` when it has saved as often as `stops`.
    """

    def __init__(self, step: bool = False, stops: int = 0) -> None:
        self.data: bytes | None = None
        self.step, self.stops = step, stops

    def left(self, within: bool = False) -> float:
        return math.inf if within and not self.step else 0.0

    def load(self) -> dict[str, Any] | None:
        return None if self.data is None else torch.load(io.BytesIO(self.data), weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.data = buffer.getvalue()
        self.stops -= 1
        if not self.stops:
            raise Interrupted


class Interrupted(Exception):
    """A run is ended in its midst."""


def interrupted(row: object) -> None:
    """In the place of a report."""
    raise Interrupted


def timeless(history: list[dict[str, Any]]) -> str:
    """What of a history must come again."""
    return json.dumps([{k: v for k, v in row.items() if k not in OF_THE_RUN} for row in history])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Are the weights equal to the bit?"""
    return equal(a.state_dict(), b.state_dict())


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Are arrays or tensors, by name, equal to the bit?"""
    alike = (np.array_equal(np.asarray(each), np.asarray(other[name])) for name, each in one.items())
    return one.keys() == other.keys() and all(alike)


def nothing(row: object) -> None:
    """A report that nobody reads."""


@dataclass(frozen=True)
class SmallStage:
    """A task in settings that suit 48 images and batches of 16."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "test_resnet"

    def encoders(self, modalities: tuple[str, ...] = ("derm",), branches: str = "shared") -> Encoders:
        """Fresh ones, always the same, of the kind that this task wants: a joint task has a branch each."""
        if self.name and find_task(self.name).joint:
            modalities, branches = ("derm", "clinic"), "separate"
        return Encoders.random(self.backbone, modalities, branches, 3)

    def recipe(self, **train: Any) -> Recipe:
        """The task's own optimiser, for two epochs at a rate that small images bear."""
        task = find_task(self.name)
        config = task.Config(**self.config).model_dump()
        given = {"epochs": 2, "batch": BATCH, **task.train_defaults, "lr": 0.02, "warmup": 0.0, "clip": None}
        read = tuple(column.name for column in COLUMNS) if task.tables else ()
        return Recipe(self.name, config, {**given, **train}, 7, "fp32", None, read)

    def train(
        self,
        store: CaseStore,
        made: Encoders | None = None,
        kept: Any = None,
        report: Report | Callable[[Any], None] = nothing,
        **settings: Any,
    ) -> tuple[Encoders, list[Any]]:
        """Two epochs in this process; the encoders and the history."""
        made = self.encoders() if made is None else made
        given = self.recipe(**settings), made, store, ROWS, kept or Kept(), report, CPU
        return made, train_stage(*given).history
