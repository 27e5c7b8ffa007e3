"""What a study may not search: settings that cannot go together, and cases that a task cannot learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.pretext.base import Setting
from dermsearch.search.space.settings import TaskSettings
from dermsearch.search.space.space import Space
from dermsearch.study.config import Study, uneven
from dermsearch.words import many


def space_of(study: Study) -> Space:
    """The space of a study, checked against the tasks themselves."""
    search = study.search
    roots = [root.name for root in study.encoder.roots]
    space = Space(study.curriculum, study.train, search.rungs, study.main.size, study.name, roots)
    space.barred.update(barred(study, space))
    looks: set[int] = set()  # epochs at which some stage is looked at
    most = 0  # epochs of the longest stage
    for task in space.given.values():
        for values in task.corners():
            train = task.whole(values)["train"]
            check_training(study, task, train)
            most = max(most, train["epochs"])
            looks.update(space.rungs(task.name, train["epochs"]))
    check_length(space)
    check_joint(study, space)
    for rung in search.rungs:
        if rung not in looks:
            behind = "behind the epochs after which rates are chosen"
            where = f"below {most}, the longest stage's epochs" if rung >= most else behind
            raise UserError(f"search.rungs: must lie {where}, not at {rung}, where no stage would be looked at")
    return space


def barred(study: Study, space: Space) -> list[tuple[str, str]]:
    """Of a study with several architectures, the (root, task) of which the task cannot train the architecture."""
    if len(study.encoder.names) == 1 or not space.given:
        return []
    found: dict[tuple[str, str], str] = {}
    for encoder in study.encoder.names:
        for name, given in space.given.items():
            settings = given.whole(next(iter(given.corners())))
            train = settings["train"]
            told = Setting(10**6, study.main.size, 0, train["batch"], 0, encoder, train["epochs"], 10**6)
            try:
                given.task.check(given.task.Config.model_validate(settings["config"]), told)
            except UserError as error:
                if str(error).startswith("encoder."):
                    found[encoder, name] = str(error)
    for name in space.given:
        if all((encoder, name) in found for encoder in study.encoder.names):
            raise UserError(found[study.encoder.names[0], name])
    for encoder in study.encoder.names:
        if all((encoder, name) in found for name in space.given):
            raise UserError(
                f"encoder.name: none of the tasks can train {encoder}; {found[encoder, next(iter(space.given))]}"
            )
    return [(root.name, name) for root in study.encoder.roots for name in space.given if (root.encoder, name) in found]


def check_training(study: Study, task: TaskSettings, train: dict[str, Any]) -> None:
    """Refuse settings of the trainer that cannot go together."""
    wrong = uneven(train["batch"], train["accumulate"], study.compute.workers)
    if wrong:
        raise UserError(f"{task.field}.batch: {wrong}")
    if train["schedule"] == "step" and not train["milestones"]:
        raise UserError(f"{task.field}.milestones: must be given for schedule 'step', such as [0.6, 0.8]")
    if train["patience"] and task.task.indexed:
        name = task.name
        raise UserError(f"{task.field}.patience: must be 0: {name} has no loss on images that it does not train on")
    if train["patience"] and study.main.transductive:
        why = "where data.transductive lets validation images be trained on"
        raise UserError(f"{task.field}.patience: must be 0 {why}")
    if task.selection and task.selection.epochs >= train["epochs"]:
        limit, short = train["epochs"] - 1, task.selection.epochs
        raise UserError(
            f"{task.field}.lr.epochs: must be at most {limit}, for the best to go on, not {short}"
            if limit
            else f"{task.field}.epochs: must be 2 or more, for the best of lr.select to go on, not 1"
        )


def check_length(space: Space) -> None:
    """Refuse curricula longer than any can be."""
    longest = space.room(Curriculum())
    if space.length[1] > longest:
        readers = ", ".join(name for name, given in space.given.items() if given.supervised)
        raise UserError(
            f"curriculum.length: must be at most {longest}, not {space.length[1]}: "
            f"what reads labels ({readers}) may only come last"
        )


def check_joint(study: Study, space: Space) -> None:
    """Refuse tasks that train all branches together where there is nothing to train together."""
    modalities = study.main.modalities
    for name, task in space.tasks.items():
        if not task.joint:
            continue
        if len(modalities) < task.least:
            raise UserError(
                f"data.modalities: must name two or more, such as [derm, clinic], for {name}, which learns from "
                f"images of the same case, not [{modalities[0]}]"
            )
        if len(modalities) > 1 and study.encoder.branches != "separate":
            pairs = " with ".join(modalities)
            raise UserError(f"encoder.branches: must be separate for {name}, which pairs {pairs}")


def check_pool(
    study: Study,
    space: Space,
    images: int,
    classes: Mapping[str, int],
    cases: int,
    tables: Mapping[str, Any],
) -> None:
    """Let every task refuse a pool of so many images (a joint one: cases), with these labels, beforehand.

    `tables` is what `Setting` has for those that read metadata.
    """
    workers, data = study.compute.workers, study.main
    for name, given in space.given.items():
        task = given.task
        units = cases if task.joint else images
        for values in given.corners():
            settings = given.whole(values)
            train = settings["train"]
            batch, accumulate, epochs = min(train["batch"], units), train["accumulate"], train["epochs"]
            if batch < 2 * workers:
                raise UserError(
                    f"compute.workers: must be at most {batch // 2}, two images of a batch for each, not {workers}"
                )
            if batch % (workers * accumulate) or batch < 2 * workers * accumulate:
                among = many(workers, "worker") + f" x {accumulate} micro-batches" * (accumulate > 1)
                raise UserError(
                    f"compute.workers: a batch of {batch}, all there is, does not divide among "
                    f"{among}; lower train.batch"
                )
            steps, seen = epochs * math.ceil(units / batch), batch // accumulate
            roots = {root.encoder: root.name for root in study.encoder.roots}
            own = tables if task.tables else {}
            for encoder in (each for each, root in roots.items() if (root, name) not in space.barred):
                told = Setting(units, data.size, 0, seen, 0, encoder, epochs, steps, classes, data.modalities, **own)
                try:
                    task.check(task.Config.model_validate(settings["config"]), told)
                except UserError as error:
                    text = str(error)  # of the task's own settings, or of the encoder that it needs
                    field = "" if text.startswith(("encoder.", "data.")) else f"curriculum.tasks.{name}."
                    raise UserError(f"{field}{text}") from None
