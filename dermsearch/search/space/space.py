"""What may be proposed: which curricula, with which settings, checked here against the tasks themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from pydantic import ValidationError

from dermsearch.errors import UserError, nearest
from dermsearch.pretext.base import AnyTask, Setting, find_task, task_names
from dermsearch.search.space.dimensions import Dimension, dimension
from dermsearch.search.space.rates import Selection, selection
from dermsearch.study.config import Study, Train, uneven
from dermsearch.study.wording import problem
from dermsearch.training.optim import FALLBACK

LARGEST = 10**7  # proposals of a finite space
CORNERS = 2000  # combinations of one task's values that are checked beforehand


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


class Choices(Protocol):
    """What a sampler must know of a space."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The tasks by name."""

    @property
    def dimensions(self) -> list[Dimension]:
        """What is searched beside the order."""

    @property
    def name(self) -> str:
        """Of the study."""

    @property
    def repeats(self) -> bool:
        """May a task come again?"""

    @property
    def length(self) -> tuple[int, int]:
        """The shortest and the longest curriculum."""

    def may_follow(self, before: Sequence[str], left: int = 0) -> list[str]:
        """The tasks that may come after these with `left` more behind them."""

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""


class Space:
    """All proposals of a study."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.tasks: dict[str, type[AnyTask]] = {}
        self.fixed: dict[str, dict[str, Any]] = {}  # task -> what the study sets
        self.selections: dict[str, Selection] = {}  # task -> rates of which short segments choose one
        self.dimensions: list[Dimension] = []
        looks: set[int] = set()  # epochs at which some stage is looked at
        most = 0  # epochs of the longest stage
        for name, given in study.curriculum.tasks.items():
            field = f"curriculum.tasks.{name}"
            if name not in task_names():
                raise UserError(f"{field}: '{name}' is not a task; {nearest(name, task_names())}")
            self.tasks[name] = find_task(name)
            self.fixed[name] = {}
            for key, value in given.items():
                allowed = {**Train.model_fields, **self.tasks[name].Config.model_fields}
                del allowed["precision"], allowed["knn_every"]  # one for all stages of a study
                if key not in allowed:
                    raise UserError(f"{field}.{key}: unknown field; {nearest(key, allowed)}")
                if key == "lr" and isinstance(value, dict) and "select" in value:
                    self.selections[name] = selection(f"{field}.{key}", value)
                elif isinstance(value, dict):
                    kind = allowed[key].annotation
                    whole = int in (kind, *get_args(kind))
                    self.dimensions.append(dimension(f"{name}.{key}", f"{field}.{key}", value, whole))
                else:
                    self.fixed[name][key] = value
            for candidate in self._corners(name):
                train = self.settings(name, candidate)["train"]
                self._check_training(name, field, train)
                most = max(most, train["epochs"])
                looks.update(self.rungs(name, train["epochs"]))
                if name in self.selections and self.selections[name].epochs >= train["epochs"]:
                    limit, short = train["epochs"] - 1, self.selections[name].epochs
                    raise UserError(
                        f"{field}.lr.epochs: must be at most {limit}, for the best to go on, not {short}"
                        if limit
                        else f"{field}.epochs: must be 2 or more, for the best of lr.select to go on, not 1"
                    )
        longest = self.room(())
        if study.curriculum.length[1] > longest:
            readers = ", ".join(name for name, cls in self.tasks.items() if cls.supervised)
            raise UserError(
                f"curriculum.length: must be at most {longest}, not {study.curriculum.length[1]}: "
                f"what reads labels ({readers}) may only come last"
            )
        self._check_joint()
        for rung in study.search.rungs:
            if rung not in looks:
                behind = "behind the epochs after which rates are chosen"
                where = f"below {most}, the longest stage's epochs" if rung >= most else behind
                raise UserError(f"search.rungs: must lie {where}, not at {rung}, where no stage would be looked at")
        if study.search.sampler == "grid":
            for d in self.dimensions:
                if d.kind != "choice":
                    raise UserError(
                        f"curriculum.tasks.{d.name}: must be {{choice: [...]}} for sampler 'grid', not "
                        f"'{d.kind}', which goes with random and tpe"
                    )

    def _check_training(self, task: str, field: str, train: dict[str, Any]) -> None:
        """Refuse settings of the trainer that cannot go together."""
        wrong = uneven(train["batch"], train["accumulate"], self.study.compute.workers)
        if wrong:
            raise UserError(f"{field}.batch: {wrong}")
        if train["schedule"] == "step" and not train["milestones"]:
            raise UserError(f"{field}.milestones: must be given for schedule 'step', such as [0.6, 0.8]")
        if train["patience"] and self.tasks[task].indexed:
            raise UserError(f"{field}.patience: must be 0: {task} has no loss on images that it does not train on")
        if train["patience"] and self.study.data.transductive:
            raise UserError(f"{field}.patience: must be 0 where data.transductive lets validation images be trained on")

    def rungs(self, task: str, epochs: int) -> list[int]:
        """The epochs at which a stage of the task is looked at: behind the choice of its rate, before its end."""
        after = self.selections[task].epochs if task in self.selections else 0
        return [rung for rung in self.study.search.rungs if after < rung < epochs]

    def _check_joint(self) -> None:
        """Refuse tasks that train all branches together where there is nothing to train together."""
        modalities = self.study.data.modalities
        for name, cls in self.tasks.items():
            if not cls.joint:
                continue
            if len(modalities) < 2:
                raise UserError(
                    f"data.modalities: must name two or more, such as [derm, clinic], for {name}, which learns from "
                    f"images of the same case, not [{modalities[0]}]"
                )
            if self.study.encoder.branches != "separate":
                pairs = " with ".join(modalities)
                raise UserError(f"encoder.branches: must be separate for {name}, which pairs {pairs}")

    def _corners(self, task: str) -> Iterator[dict[str, Any]]:
        """Settings of a task to check before anything runs: every value in turn, then what can meet, up to CORNERS."""
        own = {d.name: d.probes for d in self.dimensions if d.task == task}
        first = {name: values[0] for name, values in own.items()}
        yield first
        for name, values in own.items():
            for value in values[1:]:
                yield {**first, name: value}
        if len(own) > 1:
            for combination in itertools.islice(itertools.product(*own.values()), CORNERS):
                yield dict(zip(own, combination, strict=True))

    @property
    def name(self) -> str:
        """Of the study."""
        return self.study.name

    @property
    def repeats(self) -> bool:
        """May a task come again?"""
        return self.study.curriculum.repeats

    @property
    def length(self) -> tuple[int, int]:
        """The shortest and the longest curriculum."""
        return self.study.curriculum.length

    def may_follow(self, before: Sequence[str], left: int = 0) -> list[str]:
        """The tasks that may come after these with `left` more behind them."""
        if before and self.tasks[before[-1]].supervised:
            return []
        return [name for name in self._next(before) if self.room((*before, name)) >= left]

    def room(self, before: Sequence[str]) -> int:
        """How many more tasks can follow these; one that reads labels comes last or not at all."""
        if before and self.tasks[before[-1]].supervised:
            return 0
        found = self._next(before)
        free = [name for name in found if not self.tasks[name].supervised]
        if free and self.study.curriculum.repeats:
            return self.study.curriculum.length[1]
        readers = [name for name in found if name not in free]
        if not readers or self.study.curriculum.order == "any":
            return len(free) + bool(readers)
        ahead = found[: found.index(readers[-1])]  # what is listed before the last reader may come before it
        return max(len(free), sum(name in free for name in ahead) + 1)

    def _next(self, before: Sequence[str]) -> list[str]:
        """The tasks that repeats and order leave after these, as the study lists them."""
        names, repeats = list(self.tasks), self.study.curriculum.repeats
        if before and self.study.curriculum.order == "listed":
            names = names[names.index(before[-1]) + (not repeats) :]
        return [name for name in names if repeats or name not in before]

    def curricula(self) -> Iterator[tuple[str, ...]]:
        """Every order of tasks within the lengths, short ones first; a task that reads labels comes last."""
        names, curriculum = list(self.tasks), self.study.curriculum
        for length in range(curriculum.length[0], curriculum.length[1] + 1):
            found: Iterable[tuple[str, ...]]
            if curriculum.order == "listed":
                choose = itertools.combinations_with_replacement if curriculum.repeats else itertools.combinations
                found = choose(names, length)
            else:
                repeats = curriculum.repeats
                found = itertools.product(names, repeat=length) if repeats else itertools.permutations(names, length)
            yield from (c for c in found if not any(self.tasks[name].supervised for name in c[:-1]))

    def count(self) -> int | None:
        """How many proposals there are; None where a dimension is continuous."""
        if any(d.kind != "choice" for d in self.dimensions):
            return None
        total = 0
        for curriculum in self.curricula():
            total += math.prod(len(d.values) for d in self.dimensions if d.task in curriculum)
            if total > LARGEST:
                raise UserError(f"curriculum: has more than {LARGEST:,} proposals; search fewer tasks or lengths")
        return total

    def every(self) -> Iterator[Proposal]:
        """All proposals of a finite space, short curricula first."""
        for curriculum in self.curricula():
            own = [d for d in self.dimensions if d.task in curriculum]
            for values in itertools.product(*(d.values for d in own)):
                yield Proposal(curriculum, tuple(sorted((d.name, v) for d, v in zip(own, values, strict=True))))

    def settings(self, task: str, values: dict[str, Any]) -> dict[str, Any]:
        """Everything that trains one stage of `task`: {"config": ..., "train": ...}, nothing left open."""
        given = {
            **self.fixed[task],
            **{n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{task}.")},
        }
        cls, field = self.tasks[task], f"curriculum.tasks.{task}"
        try:
            config = cls.Config.model_validate({k: v for k, v in given.items() if k in cls.Config.model_fields})
            study = self.study.train.model_dump(exclude_none=True)
            own = {k: v for k, v in given.items() if k in Train.model_fields and k not in cls.Config.model_fields}
            train = Train.model_validate({**study, **own})
        except ValidationError as error:
            where, what = problem(dict(error.errors()[0]))
            raise UserError(f"{field}.{where}: {what}") from None
        return {"config": config.model_dump(mode="json"), "train": complete(train, cls.train_defaults)}

    def check(self, images: int, classes: Mapping[str, int], cases: int) -> None:
        """Let every task refuse a pool of so many images (a joint one: cases), with these labels, beforehand."""
        study = self.study
        for name, cls in self.tasks.items():
            units = cases if cls.joint else images
            for values in self._corners(name):
                s = self.settings(name, values)
                batch = min(s["train"]["batch"], units)
                if batch < 2 * study.compute.workers:
                    raise UserError(
                        f"compute.workers: must be at most {batch // 2}, two images of a batch for each, "
                        f"not {study.compute.workers}"
                    )
                accumulate = s["train"]["accumulate"]
                if batch % (study.compute.workers * accumulate) or batch < 2 * study.compute.workers * accumulate:
                    among = f"{study.compute.workers} workers" + f" x {accumulate} micro-batches" * (accumulate > 1)
                    raise UserError(
                        f"compute.workers: a batch of {batch}, all there is, does not divide among "
                        f"{among}; lower train.batch"
                    )
                epochs = s["train"]["epochs"]
                steps = epochs * math.ceil(units / batch)
                seen = batch // accumulate
                told = Setting(
                    units,
                    study.data.size,
                    0,
                    seen,
                    0,
                    study.encoder.name,
                    epochs,
                    steps,
                    classes,
                    study.data.modalities,
                )
                try:
                    cls.check(cls.Config.model_validate(s["config"]), told)
                except UserError as error:
                    text = str(error)  # of the task's own settings, or of the encoder that it needs
                    raise UserError(
                        text if text.startswith("encoder.") else f"curriculum.tasks.{name}.{text}"
                    ) from None


def complete(train: Train, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill what nobody gave from the task's own defaults, the learning rate in proportion to the batch."""
    # Neither is a stage's own: precision is in the key by itself, and kNN only watches, so it is in no key.
    settings = train.model_dump(mode="json", exclude={"precision", "knn_every"})
    for name, value in settings.items():
        if value is None and name != "lr":
            settings[name] = defaults.get(name, FALLBACK[name])
    if settings["lr"] is None:
        reference = defaults.get("lr", FALLBACK["lr"])
        settings["lr"] = reference * settings["batch"] / defaults.get("lr_batch", settings["batch"])
    return settings
