"""What may be proposed: which curricula, with which settings, checked here against the tasks themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dermsearch.config import Study, Train
from dermsearch.errors import UserError, nearest
from dermsearch.pretext.base import Setting, Task, find_task, task_names
from dermsearch.studyfile import problem

FALLBACK = {
    "optimizer": "sgd",
    "lr": 0.03,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup": 0.0,
}


@dataclass(frozen=True)
class Dimension:
    """One scalar of one task that the search varies."""

    name: str  # "moco_v2.lr"
    kind: str  # choice | log | range
    values: tuple[Any, ...]  # the choices, or (low, high)

    @property
    def task(self) -> str:
        """The task that it belongs to."""
        return self.name.partition(".")[0]

    @property
    def integer(self) -> bool:
        """Does a range run over whole numbers?"""
        return all(isinstance(v, int) for v in self.values)


@dataclass(frozen=True)
class Proposal:
    """A curriculum with a value for every dimension of its tasks."""

    curriculum: tuple[str, ...]
    values: tuple[tuple[str, Any], ...] = ()  # sorted by name

    @property
    def settings(self) -> dict[str, Any]:
        """The values by dimension."""
        return dict(self.values)

    def prefix(self, length: int) -> Proposal:
        """The shorter curriculum that this one begins with."""
        tasks = self.curriculum[:length]
        return Proposal(tasks, tuple((n, v) for n, v in self.values if n.partition(".")[0] in tasks))


class Space:
    """All proposals of a study."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.tasks: dict[str, type[Task]] = {}
        self.fixed: dict[str, dict[str, Any]] = {}  # task -> what the study sets
        self.dimensions: list[Dimension] = []
        for name, given in study.curriculum.tasks.items():
            field = f"curriculum.tasks.{name}"
            if name not in task_names():
                raise UserError(f"{field}: '{name}' is not a task; {nearest(name, task_names())}")
            self.tasks[name] = find_task(name)
            self.fixed[name] = {}
            for key, value in given.items():
                allowed = [*self.tasks[name].Config.model_fields, *Train.model_fields]
                if key not in allowed or key == "precision":
                    raise UserError(f"{field}.{key}: unknown field; {nearest(key, allowed)}")
                if isinstance(value, dict):
                    own = self.tasks[name].Config.model_fields
                    whole = (own if key in own else Train.model_fields)[key].annotation is int
                    self.dimensions.append(dimension(f"{name}.{key}", f"{field}.{key}", value, whole))
                else:
                    self.fixed[name][key] = value
            for candidate in self._corners(name):
                self.settings(name, candidate)
        if study.search.sampler == "grid":
            for d in self.dimensions:
                if d.kind != "choice":
                    raise UserError(
                        f"curriculum.tasks.{d.name}: sampler 'grid' needs choices, e.g. {{choice: [...]}}; "
                        f"'{d.kind}' goes with random and tpe"
                    )

    def _corners(self, task: str) -> Iterator[dict[str, Any]]:
        """Each dimension's values in turn, the others at their first: every value is checked before anything runs."""
        own = [d for d in self.dimensions if d.task == task]
        first = {d.name: d.values[0] for d in own}
        yield first
        for d in own:
            for value in d.values[1:]:
                yield {**first, d.name: value}

    def curricula(self) -> Iterator[tuple[str, ...]]:
        """Every order of tasks within the lengths, short ones first."""
        names = list(self.tasks)
        shortest, longest = self.study.curriculum.length
        for length in range(shortest, longest + 1):
            if self.study.curriculum.repeats:
                yield from itertools.product(names, repeat=length)
            else:
                yield from itertools.permutations(names, length)

    def count(self) -> int | None:
        """How many proposals there are; None where a dimension is continuous."""
        if any(d.kind != "choice" for d in self.dimensions):
            return None
        total = 0
        for curriculum in self.curricula():
            total += math.prod(len(d.values) for d in self.dimensions if d.task in curriculum)
            if total > 10**7:
                raise UserError(
                    "curriculum: has more than ten million proposals; search fewer tasks or lengths"
                )
        return total

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""
        for curriculum in self.curricula():
            own = [d for d in self.dimensions if d.task in curriculum]
            for values in itertools.product(*(d.values for d in own)):
                yield Proposal(
                    curriculum, tuple(sorted((d.name, v) for d, v in zip(own, values, strict=True)))
                )

    def settings(self, task: str, values: dict[str, Any]) -> dict[str, Any]:
        """Everything that trains one stage of `task`: {"config": ..., "train": ...}, nothing left open."""
        given = {
            **self.fixed[task],
            **{n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{task}.")},
        }
        cls, field = self.tasks[task], f"curriculum.tasks.{task}"
        try:
            config = cls.Config.model_validate(
                {k: v for k, v in given.items() if k in cls.Config.model_fields}
            )
            study = self.study.train.model_dump(exclude_none=True)
            own = {
                k: v for k, v in given.items() if k in Train.model_fields and k not in cls.Config.model_fields
            }
            train = Train.model_validate({**study, **own})
        except ValidationError as error:
            where, what = problem(dict(error.errors()[0]))
            raise UserError(f"{field}.{where}: {what}") from None
        return {"config": config.model_dump(mode="json"), "train": complete(train, cls.train_defaults)}

    def check(self, units: int, dim: int) -> None:
        """Let every task refuse a pool of this many images before anything starts."""
        study = self.study
        for name, cls in self.tasks.items():
            for values in self._corners(name):
                s = self.settings(name, values)
                batch = min(s["train"]["batch"], units) // study.compute.workers * study.compute.workers
                if batch < 2 * study.compute.workers:
                    raise UserError(
                        f"compute.workers: {units} training images are too few for {study.compute.workers} workers"
                    )
                try:
                    cls.check(
                        cls.Config.model_validate(s["config"]), Setting(units, study.data.size, dim, batch, 0)
                    )
                except UserError as error:
                    raise UserError(f"curriculum.tasks.{name}.{error}") from None


def complete(train: Train, defaults: dict[str, Any]) -> dict[str, Any]:
    """Fill what nobody gave from the task's own defaults, the learning rate in proportion to the batch."""
    settings = train.model_dump(mode="json", exclude={"precision"})
    for name in ("optimizer", "momentum", "weight_decay", "schedule", "warmup"):
        if settings[name] is None:
            settings[name] = defaults.get(name, FALLBACK[name])
    if settings["lr"] is None:
        reference = defaults.get("lr", FALLBACK["lr"])
        settings["lr"] = reference * settings["batch"] / defaults.get("lr_batch", settings["batch"])
    return settings


def dimension(name: str, field: str, value: dict[str, Any], whole: bool) -> Dimension:
    """{choice: [...]}, {log: [low, high]} or {range: [low, high]} of a study file."""
    if len(value) != 1 or next(iter(value)) not in ("choice", "log", "range"):
        given = ", ".join(str(k) for k in value) or "nothing"
        raise UserError(
            f"{field}: a dimension reads {{choice: [...]}}, {{log: [low, high]}} or {{range: [low, high]}}, not {given[:60]}"
        )
    kind, values = next(iter(value.items()))
    if not isinstance(values, list) or not values:
        raise UserError(f"{field}.{kind}: must be a list of values")
    if kind == "choice":
        if any(isinstance(v, (list, dict)) or v is None for v in values):
            raise UserError(f"{field}.choice: each choice must be one number, word, true or false")
        if len({(type(v), v) for v in values}) != len(values):
            raise UserError(f"{field}.choice: names a value twice")
        return Dimension(name, kind, tuple(values))
    numbers = all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
    if len(values) != 2 or not numbers or not values[0] < values[1]:
        raise UserError(f"{field}.{kind}: must be two numbers [low, high], low below high")
    if kind == "log" and values[0] <= 0:
        raise UserError(f"{field}.log: must start above 0")
    if whole and not all(isinstance(v, int) for v in values):
        raise UserError(f"{field}.{kind}: must be two whole numbers")
    return Dimension(name, kind, tuple(values) if whole else tuple(float(v) for v in values))
