"""One task of a study: what is fixed, what is searched, and with both the whole settings of a stage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from dermsearch.errors import UserError, nearest
from dermsearch.pretext.base import AnyTask, find_task, task_names
from dermsearch.search.space.dimensions import Dimension, dimension
from dermsearch.search.space.rates import Selection, selection
from dermsearch.study.config import Train
from dermsearch.study.wording import problem
from dermsearch.training.optim import FALLBACK, RATED, RATES

CORNERS = 2000  # combinations of one task's values that are checked beforehand


@dataclass
class TaskSettings:
    """What a study says of a task, on top of what it says of all."""

    name: str
    task: type[AnyTask]
    train: Train  # of all tasks
    fixed: dict[str, Any] = field(default_factory=dict)
    dimensions: list[Dimension] = field(default_factory=list)
    selection: Selection | None = None  # rates of which short segments choose one

    @property
    def field(self) -> str:
        """Where the study says it."""
        return f"curriculum.tasks.{self.name}"

    @property
    def supervised(self) -> bool:
        """Does it read labels in any stage? Where a setting decides, one that is given or searched."""
        by = self.task.supervised_by
        searched = any(d.name == f"{self.name}.{by}" for d in self.dimensions)
        return self.task.supervised or (bool(by) and (searched or self.fixed.get(by) is not None))

    def whole(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that trains one stage: {"config": ..., "train": ...}, nothing left open."""
        own = {n.rpartition(".")[2]: v for n, v in values.items() if n.rpartition(".")[0] == self.name}
        given, config_fields = {**self.fixed, **own}, self.task.Config.model_fields
        try:
            config = self.task.Config.model_validate({k: v for k, v in given.items() if k in config_fields})
            shared = self.train.model_dump(exclude_none=True)
            own = {k: v for k, v in given.items() if k in Train.model_fields and k not in config_fields}
            train = Train.model_validate({**shared, **own})
        except ValidationError as error:
            where, what = problem(dict(error.errors()[0]))
            raise UserError(f"{self.field}.{where}: {what}") from None
        return {"config": config.model_dump(mode="json"), "train": complete(train, self.task.train_defaults)}

    def corners(self) -> Iterator[dict[str, Any]]:
        """Values to check before anything runs: each one in turn, then what can meet, up to CORNERS."""
        probes = {d.name: d.probes for d in self.dimensions}
        first = {name: values[0] for name, values in probes.items()}
        yield first
        for name, values in probes.items():
            for value in values[1:]:
                yield {**first, name: value}
        if len(probes) > 1:
            for combination in itertools.islice(itertools.product(*probes.values()), CORNERS):
                yield dict(zip(probes, combination, strict=True))


def read_task(name: str, given: Mapping[str, Any], train: Train) -> TaskSettings:
    """A task of a study file, or one sentence on what is wrong with it."""
    if name not in task_names():
        raise UserError(f"curriculum.tasks.{name}: '{name}' is not a task; {nearest(name, task_names())}")
    read = TaskSettings(name, find_task(name), train)
    allowed = {**Train.model_fields, **read.task.Config.model_fields}
    del allowed["precision"], allowed["knn_every"]  # one for all stages of a study
    for key, value in given.items():
        where = f"{read.field}.{key}"
        if key not in allowed:
            raise UserError(f"{where}: unknown field; {nearest(key, allowed)}")
        if key == "lr" and isinstance(value, dict) and "select" in value:
            read.selection = selection(where, value)
        elif isinstance(value, dict):
            kind = allowed[key].annotation
            read.dimensions.append(dimension(f"{name}.{key}", where, value, int in (kind, *get_args(kind))))
        else:
            read.fixed[key] = value
    return read


def complete(train: Train, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill what nobody gave from the task's own defaults, the learning rate in proportion to the batch.

    With another optimiser than the task's own the rate is one for that optimiser.
    """
    # Neither is a stage's own: precision is in the key by itself, and kNN only watches, so it is in no key.
    settings = train.model_dump(mode="json", exclude={"precision", "knn_every"})
    for name, value in settings.items():
        if value is None and name != "lr":
            settings[name] = defaults.get(name, FALLBACK[name])
    if settings["lr"] is None and settings["optimizer"] != defaults.get("optimizer", FALLBACK["optimizer"]):
        settings["lr"] = RATES[settings["optimizer"]] * settings["batch"] / RATED
    elif settings["lr"] is None:
        reference = defaults.get("lr", FALLBACK["lr"])
        settings["lr"] = reference * settings["batch"] / defaults.get("lr_batch", settings["batch"])
    return settings
