"""What can be wrong with a study beyond its form, found before anything is written, trained or started."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import ValidationError

from dermsearch.data.case import NAMED, SEVEN_POINT
from dermsearch.data.drawn.skin import draw_labels, walk_patients
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import split_by_group
from dermsearch.errors import UserError, nearest
from dermsearch.evaluate import PROTOCOLS
from dermsearch.models.encoders import Encoders, check_encoder
from dermsearch.models.weights import read_weights
from dermsearch.run.loggers import check_loggers
from dermsearch.search.propose.sampler import SAMPLERS
from dermsearch.search.space.checks import check_pool, space_of
from dermsearch.search.space.space import Space
from dermsearch.storage.files import first_line
from dermsearch.study.config import Data, Study
from dermsearch.study.reading import problem


def check(study: Study) -> Space:
    """Everything that can be wrong with a study beyond its form. Costs no compute, writes nothing."""
    space = space_of(study)
    check_sampler(study, space)
    check_encoder(study.encoder.name)
    check_size(study)
    check_labels(study, space)
    if study.encoder.weights is not None:
        read_weights(study.encoder.weights, study.encoder.name)
    check_loggers(study.logging)
    for name, config in study.downstream.items():
        if name not in PROTOCOLS:
            raise UserError(f"downstream.{name}: '{name}' is not a protocol; {nearest(name, PROTOCOLS)}")
        try:
            PROTOCOLS[name].Config.model_validate(config or {}, strict=True)
        except ValidationError as error:
            where, what = problem(dict(error.errors()[0]))
            if "unknown field" in what:
                what = f"unknown field; {nearest(where, PROTOCOLS[name].Config.model_fields)}"
            raise UserError(f"downstream.{name}.{where}: {what}") from None
    if "pairs" in study.downstream and len(study.data.modalities) != 2:
        raise UserError("downstream.pairs: needs two modalities, such as data.modalities: [derm, clinic]")
    count = space.count()
    if study.search.sampler == "grid" and count is not None and study.search.trials is None and count > 100_000:
        raise UserError(f"search: the grid has {count} proposals; limit it with search.trials or use tpe")
    if study.published is not None:
        from dermsearch.papers.published import named_tables, published_rows
        from dermsearch.results.papers.sm3 import FORMS

        for name in named_tables({"published": study.published}, FORMS):
            published_rows(name)
    if study.data.source == "synthetic":
        check_images(study, space, drawn_for_training(study.data))
    return space


def check_sampler(study: Study, space: Space) -> None:
    """The sampler must be shipped or of an installed package, and must come to an end."""
    search, name = study.search, study.search.sampler
    try:
        finite = SAMPLERS.find(name).finite
    except UserError as error:
        raise UserError(f"search.sampler: {error}") from None
    if not finite and search.trials is None and search.budget is None:
        raise UserError(f"search.trials: is missing: sampler '{name}' needs to know how many, or a budget")
    for d in space.dimensions if finite else ():
        if d.kind != "choice":
            raise UserError(
                f"curriculum.tasks.{d.name}: must be {{choice: [...]}} for sampler '{name}', not "
                f"'{d.kind}', which goes with random and tpe"
            )


def check_labels(study: Study, space: Space) -> None:
    """A task that reads labels may read those alone that the protocols learn from."""
    for name, task in space.tasks.items():
        if task.supervised and study.data.transductive:
            raise UserError(
                f"curriculum.tasks.{name}: goes with data.transductive: false only; it would learn from the labels "
                "of validation and test cases"
            )
        if task.supervised and study.data.labelled != "all":
            raise UserError(
                f"curriculum.tasks.{name}: goes with data.labelled: all only, not {study.data.labelled}; "
                "it reads the labels of all training cases"
            )


def check_size(study: Study) -> None:
    """Let the backbone look at a picture without pixels: some take one size only."""
    name, size = study.encoder.name, study.data.size
    try:
        encoders = Encoders.empty(name, ("derm",), "shared")
        encoders(torch.empty(2, 3, size, size, device="meta"), "derm")
    except NotImplementedError:
        return  # it cannot be tried without weights
    except Exception as error:  # of many kinds: every backbone has its own
        raise UserError(
            f"encoder.name: '{name}' cannot see images of data.size, {size} px: {first_line(error)}"
        ) from None


def drawn_for_training(data: Data) -> int:
    """How many of the built-in cases will be for training, told without drawing one; of very many, at most."""
    if data.transductive:
        return data.cases
    if data.cases > 5000:
        return math.ceil(0.72 * data.cases)
    patients = [patient for _, patient, _ in walk_patients(data.cases, data.seed)]
    names = [SEVEN_POINT["diagnosis"][draw_labels(data.seed, i)["diagnosis"]] for i in range(data.cases)]
    kinds = np.unique(names, return_inverse=True)[1]
    return split_by_group(patients, kinds, data.seed).count("train")


def check_images(study: Study, space: Space, training: int) -> None:
    """What can be wrong with a study that trains its encoders on that many cases."""
    pooled = len(study.data.modalities) if study.encoder.branches == "shared" else 1
    known = {name: len(names) for name, names in SEVEN_POINT.items()} if study.data.source == "synthetic" else {}
    check_pool(study, space, training * pooled, known, training)


def check_cases(study: Study, space: Space, cases: CaseStore) -> None:
    """What can be wrong between a study and its cases."""
    label = study.objective.label
    if label not in (*cases.classes, "mean", "pairs"):
        raise UserError(
            f"objective.label: the cases have no label '{label}'; {nearest(label, [*cases.classes, 'mean'])}"
        )
    metric, named = study.objective.metric, [k for k, name in NAMED.items() if name in cases.classes.get(k, ())]
    if metric.startswith("named_") and not named:
        raise UserError(
            f"objective.metric: '{metric}' needs a label with a class that papers report, such as diagnosis with MEL; "
            "the cases have none"
        )
    if len(cases.split("val")) == 0:
        raise UserError(
            f"data: the store at {cases.folder} has no validation cases to select on; prepare it with --split"
        )
    check_pairs(study, space, cases)
    rows = training_rows(study, cases)
    some = np.any([cases.has(m)[rows] for m in study.data.modalities], axis=0)
    classes = {name: len(names) for name, names in cases.classes.items()}
    check_pool(study, space, smallest_pool(study, cases), classes, int(some.sum()))


def check_pairs(study: Study, space: Space, cases: CaseStore) -> None:
    """A task that pairs images of the same case needs cases that have them; the others' may be missing."""
    joint = [name for name, task in space.tasks.items() if task.joint]
    if not joint:
        return
    rows, modalities = training_rows(study, cases), study.data.modalities
    whole = int(np.all([cases.has(m)[rows] for m in modalities], axis=0).sum())
    if whole < 2:
        number = "no training case has" if whole == 0 else "only one training case has"
        raise UserError(
            f"data.modalities: {number} {' and '.join(modalities)} images in the store at {cases.folder}; "
            f"{joint[0]} pairs them"
        )


def training_images(study: Study, cases: CaseStore) -> int:
    """How many cases the encoders are trained on."""
    return len(training_rows(study, cases))


def training_rows(study: Study, cases: CaseStore) -> np.ndarray:
    """The cases that the encoders are trained on."""
    return np.arange(len(cases)) if study.data.transductive else cases.split("train")


def smallest_pool(study: Study, cases: CaseStore) -> int:
    """How many images an encoder is trained on: the fewest, where branches differ."""
    rows = training_rows(study, cases)
    each = [int(cases.has(m)[rows].sum()) for m in study.data.modalities]
    return sum(each) if study.encoder.branches == "shared" else min(each)
