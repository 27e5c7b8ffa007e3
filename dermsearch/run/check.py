"""What can be wrong with a study beyond its form, found before anything is written, trained or started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from dermsearch.data.domain import DOMAINS, Domain
from dermsearch.data.open import domain_of, drawn_for_training
from dermsearch.data.store.case_store import CaseStore, check_columns
from dermsearch.errors import UserError, first_line, nearest
from dermsearch.evaluate.base import PROTOCOLS, check_objective, reads_tables
from dermsearch.models.encoders import Encoders, check_encoder
from dermsearch.nature import TARGET
from dermsearch.run.loggers import check_loggers
from dermsearch.run.roots import check_weights as check_starting_weights
from dermsearch.run.weights import check_weights
from dermsearch.search.propose.sampler import SAMPLERS
from dermsearch.search.propose.tables import read_table
from dermsearch.search.space.checks import check_pool, space_of
from dermsearch.search.space.space import Space
from dermsearch.study.config import Downstream, Study
from dermsearch.study.data import Data
from dermsearch.study.wording import problem


def check(study: Study) -> Space:
    """Everything that can be wrong with a study beyond its form. Costs no compute, writes nothing."""
    space = space_of(study)
    check_sampler(study, space)
    for name, data in study.sets.items():
        check_data(study, name, data)
    for root in study.encoder.roots:
        check_encoder(root.encoder)
        check_size(root.encoder, study)
        check_starting_weights(root, study)
    check_labels(study, space)
    check_loggers(study.logging)
    for entry in study.entries.values():
        check_entry(study, entry)
        for root in study.encoder.roots:
            check_sight(study, entry, root.encoder)
    check_wanted(study)
    count = space.count()
    if study.search.sampler == "grid" and count is not None and study.search.trials is None and count > 100_000:
        raise UserError(f"search: the grid has {count} proposals; limit it with search.trials or use tpe")
    if study.published is not None:
        from dermsearch.papers.published import named_tables, published_rows
        from dermsearch.results.papers.sm3 import FORMS

        for name in named_tables({"published": study.published}, FORMS):
            published_rows(FORMS[name].name if name in FORMS else name)
    if study.main.source == "synthetic":
        check_images(study, space, drawn_for_training(study.main))
    return space


def check_machine(study: Study) -> None:
    """Refuse GPUs for a Ray of this machine's own where it has none."""
    compute = study.compute
    if compute.engine == "ray" and compute.gpus and not torch.cuda.is_available():
        raise UserError(
            f"compute.gpus: is {compute.gpus:g}, and this machine has no GPU; join a cluster that has with --address"
        )


def place_of(study: Study, name: str) -> str:
    """The field of a data set."""
    return f"data.{name}" if isinstance(study.data, dict) else "data"


def check_data(study: Study, name: str, data: Data) -> None:
    """What a data set says must be known to its domain, and be something that the encoders look at."""
    field = place_of(study, name)
    try:
        domain: Domain = DOMAINS.find(data.domain)
    except UserError as error:
        raise UserError(f"{field}.domain: {error}") from None
    if data.source == "synthetic":
        try:
            domain_of(data)
        except UserError as error:
            raise UserError(f"{field}{str(error).removeprefix('data')}") from None
    for modality in data.modalities:
        if modality not in domain.modalities:
            raise UserError(
                f"{field}.modalities: must be of {', '.join(domain.modalities)}, not '{modality}'; "
                f"{nearest(modality, domain.modalities)}"
            )
        if modality not in study.main.modalities:
            seen = ", ".join(study.main.modalities)
            raise UserError(f"{field}.modalities: the encoders see {seen} images only, not {modality}")
    if data.normalise not in domain.statistics:
        raise UserError(f"{field}.normalise: must be one of {', '.join(domain.statistics)}, not '{data.normalise}'")


def check_entry(study: Study, entry: Downstream) -> None:
    """A protocol of the study, with its settings and the data set that it judges on."""
    if entry.protocol not in PROTOCOLS:
        raise UserError(
            f"downstream.{entry.name}: '{entry.protocol}' is not a protocol; "
            f"{nearest(entry.protocol, PROTOCOLS.names())}"
        )
    protocol = PROTOCOLS.find(entry.protocol)
    try:
        protocol.Config.model_validate(entry.config)
    except ValidationError as error:
        where, what = problem(dict(error.errors()[0]), protocol.Config)
        if "unknown field" in what and "." not in where:
            what = f"unknown field; {nearest(where, [*protocol.Config.model_fields, 'labelled', 'repeats'])}"
        raise UserError(f"downstream.{entry.name}.{where}: {what}") from None
    data, few = study.sets[entry.data], [each for each in entry.labelled if each != "all"]
    if reads_tables(protocol, entry.config) and not data.metadata:
        raise UserError(
            f"downstream.{entry.name}: reads metadata, and {place_of(study, entry.data)}.metadata names no columns"
        )
    if not protocol.nature.learns and (few or entry.repeats > 1) and study.downstream[entry.name]:
        raise UserError(f"downstream.{entry.name}: learns nothing, so it takes neither labelled nor repeats")
    if TARGET in protocol.nature.needs:
        check_source(study, entry)
    if "pairs" in protocol.nature.needs and len(data.modalities) != 2:
        field = place_of(study, entry.data)
        raise UserError(f"downstream.{entry.name}: needs two modalities, such as {field}.modalities: [derm, clinic]")


def check_source(study: Study, entry: Downstream) -> None:
    """An adaptation learns the labels of another data set than that on which it is judged."""
    source = source_of(study, entry)
    others = [name for name in study.sets if name != entry.data]
    if source not in others:
        known = ", ".join(others) or "none: give data by several names"
        said = f"'{source}' is its own target" if source == entry.data else f"no data set is called '{source}'"
        raise UserError(f"downstream.{entry.name}.source: {said}; must be one of {known}")
    ours, theirs = study.sets[source].modalities, study.sets[entry.data].modalities
    if ours != theirs:
        raise UserError(
            f"downstream.{entry.name}: {place_of(study, source)}.modalities and {place_of(study, entry.data)}."
            f"modalities must be the same, not {', '.join(ours)} and {', '.join(theirs)}"
        )


def source_of(study: Study, entry: Downstream) -> str:
    """The data set whose labels a line of downstream learns."""
    if TARGET not in PROTOCOLS.find(entry.protocol).nature.needs:
        return entry.data
    return entry.config.get("source") or next(iter(study.sets))


def check_alike(study: Study, entry: Downstream, stores: Mapping[str, CaseStore]) -> None:
    """Labels that are learnt in one data set must mean the same in the other, which must have images."""
    source = source_of(study, entry)
    if source == entry.data or not {source, entry.data} <= stores.keys():
        return
    ours, theirs = stores[source], stores[entry.data]
    if ours.classes != theirs.classes:
        said = " and ".join(
            "; ".join(f"{label}: {', '.join(names)}" for label, names in each.classes.items())
            for each in (ours, theirs)
        )
        raise UserError(
            f"downstream.{entry.name}: must have the labels of '{source}', with the same classes, not {said}"
        )
    modalities = study.sets[source].modalities
    for name, cases, why in ((source, ours, "learn from"), (entry.data, theirs, "adapt to")):
        if not np.all([cases.has(m)[cases.split("train")] for m in modalities], axis=0).any():
            raise UserError(f"downstream.{entry.name}: no training case of '{name}' has images to {why}")


def check_wanted(study: Study) -> None:
    """The objective is one that its protocols give, of a label that the cases have."""
    for entry, _ in study.wanted:
        nature, objective, data = PROTOCOLS.find(entry.protocol).nature, study.objective, study.sets[entry.data]
        check_objective(nature, entry.protocol, objective.metric, objective.label)
        if data.source == "synthetic" and nature.labels is None:
            labels = (*DOMAINS.find(data.domain).labels, "mean")
            if objective.label not in labels:
                raise UserError(
                    f"objective.label: must be one of {', '.join(labels)}, not '{objective.label}'; "
                    f"{nearest(objective.label, labels)}"
                )


def check_sampler(study: Study, space: Space) -> None:
    """The sampler must be shipped or of an installed package, and must come to an end."""
    search, name = study.search, study.search.sampler
    try:
        sampler = SAMPLERS.find(name)
    except UserError as error:
        raise UserError(f"search.sampler: {error}") from None
    sampler.optuna(search.sampler_seed)  # whose package may be missing
    finite = sampler.finite
    if not finite and not study.curriculum.tasks:
        raise UserError(f"search.sampler: must be grid where curriculum.tasks names none, not '{name}'")
    if search.learn_from and not sampler.learns_from:
        raise UserError(f"search.learn_from: goes with sampler curriculum_prior, not '{name}'")
    for table in search.learn_from:
        try:
            read_table(table)
        except UserError as error:
            raise UserError(f"search.learn_from: {error}") from None
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
    first = next(iter(study.sets))
    for name, task in space.given.items():
        if task.supervised and study.main.transductive:
            raise UserError(
                f"curriculum.tasks.{name}: goes with data.transductive: false only; it would learn from the labels "
                "of validation and test cases"
            )
        few = [each for e in study.entries.values() if e.data == first for each in e.labelled if each != "all"]
        if task.supervised and few:
            raise UserError(
                f"curriculum.tasks.{name}: goes with labelled: all only, not {few[0]}; "
                "it reads the labels of all training cases"
            )


def check_size(encoder: str, study: Study) -> None:
    """Let the backbone look at pictures without pixels: some take one size only."""
    for name, data in study.sets.items():
        if (wrong := blind(encoder, data.size)) is not None:
            field = f"{place_of(study, name)}.size"
            raise UserError(f"encoder.name: '{encoder}' cannot see images of {field}, {data.size} px: {wrong}")


@cache
def blind(encoder: str, size: int) -> str | None:
    """What keeps a backbone from seeing images of that side; None where nothing does, or nobody knows."""
    try:
        encoders = Encoders.empty(encoder, ("any",), "shared")
        encoders(torch.empty(2, 3, size, size, device="meta"), "any")
    except NotImplementedError:
        return None  # it cannot be tried without weights
    except Exception as error:  # of many kinds: every backbone has its own
        return first_line(error)
    return None


def check_sight(study: Study, entry: Downstream, encoder: str) -> None:
    """A protocol may refuse a backbone by what it would see of its images."""
    protocol = PROTOCOLS.find(entry.protocol)
    sees = getattr(protocol, "sees", None)
    try:
        if sees is not None:
            sees(protocol.Config.model_validate(entry.config), encoder, study.sets[entry.data].size)
    except NotImplementedError:
        return  # it cannot be tried without weights
    except UserError as error:
        raise UserError(f"downstream.{entry.name}: {str(error).removeprefix(f'{entry.protocol}: ')}") from None


def check_images(study: Study, space: Space, training: int) -> None:
    """What can be wrong with a study that trains its encoders on that many cases."""
    data = study.main
    pooled = len(data.modalities) if study.encoder.branches == "shared" else 1
    labels = domain_of(data).labels if data.source == "synthetic" else {}
    known = {name: len(classes) for name, classes in labels.items()}
    tables: dict[str, Any] = {}
    if data.source == "synthetic" and data.table is None:  # whose columns a file tells
        columns = tuple(c for c in domain_of(data).columns if c.name in data.metadata)
        tables = {"columns": columns, "names": labels}
        if len(columns) < len(data.metadata):
            known_names = [c.name for c in domain_of(data).columns]
            wrong = next(name for name in data.metadata if name not in known_names)
            raise UserError(f"data.metadata: '{wrong}' is no metadata of built-in cases; {nearest(wrong, known_names)}")
    check_pool(study, space, training * pooled, known, training, tables)


def check_cases(study: Study, space: Space, stores: Mapping[str, CaseStore]) -> None:
    """What can be wrong between a study and the cases of its data sets, those that are here."""
    judged = {entry.data for entry in study.entries.values()}
    for name, cases in stores.items():
        check_columns(cases, study.sets[name].metadata)
        if name in judged and len(cases.split("val")) == 0:
            raise UserError(
                f"{place_of(study, name)}: the store at {cases.folder} has no validation cases to select on; "
                "prepare it with --split"
            )
        for entry in study.entries.values():
            if entry.data == name:
                check_enough(entry, cases)
                check_alike(study, entry, stores)
                if "masks" in PROTOCOLS.find(entry.protocol).nature.needs and not cases.about["masks"]:
                    raise UserError(
                        f"downstream.{entry.name}: the store at {cases.folder} has no masks; "
                        "prepare it with --masks FOLDER"
                    )
    for entry, _ in study.wanted:
        if entry.data in stores and PROTOCOLS.find(entry.protocol).nature.labels is None:
            check_label(study, stores[entry.data])
    first = next(iter(study.sets))
    if first in stores:
        cases = stores[first]
        check_pairs(study, space, cases)
        check_tables(study, space, cases)
        rows = training_rows(study, cases)
        some = np.any([cases.has(m)[rows] for m in study.main.modalities], axis=0)
        classes = {name: len(names) for name, names in cases.classes.items()}
        who = cases.patients()[rows[some]]
        columns = tuple(cases.columns[name] for name in study.main.metadata)
        tables = {"columns": columns, "patients": len(np.unique(who[who >= 0])), "names": cases.classes}
        check_pool(study, space, smallest_pool(study, cases), classes, int(some.sum()), tables)
        check_patience(study, space, cases)
        check_weights(study, space, cases, rows, stores)
    for name in [name for name in stores if name in judged]:
        check_whole(study, name, stores[name])


def check_enough(entry: Downstream, cases: CaseStore) -> None:
    """No class may lack so many labels that not one has as many; a protocol may need a number of labelled cases."""
    most = max((int(n.max(initial=0)) for n in class_counts(cases).values()), default=0)
    for each in entry.labelled if not entry.config.get("source") else ():  # of another data set's labels
        if each.isdigit() and int(each) > most:
            raise UserError(
                f"downstream.{entry.name}.labelled: must be at most {most}, the training cases of the largest class, "
                f"not {each}"
            )
    enough = getattr(PROTOCOLS.find(entry.protocol), "enough", None)
    if enough is not None:
        config = PROTOCOLS.find(entry.protocol).Config.model_validate(entry.config)
        for each in entry.labelled:
            enough(config, len(cases.split("train" if each == "all" else f"train:{each}")))


def class_counts(cases: CaseStore) -> dict[str, np.ndarray]:
    """Training cases of every class, by label."""
    rows = cases.split("train")
    known = {label: cases.label(label)[rows] for label in cases.classes}
    return {label: np.bincount(of[of >= 0], minlength=len(cases.classes[label])) for label, of in known.items()}


def check_patience(study: Study, space: Space, cases: CaseStore) -> None:
    """A batch of validation images must not hold one twice where it would be its own negative."""
    held = smallest_pool(study, cases, cases.split("val"))
    for name, given in space.given.items():
        for train in (given.whole(values)["train"] for values in given.corners()):
            batch = min(train["batch"], smallest_pool(study, cases)) // train["accumulate"]
            if space.tasks[name].contrasts and train["patience"] and held < batch:
                raise UserError(
                    f"curriculum.tasks.{name}.batch: must be at most {held * train['accumulate']} with patience, which "
                    f"looks at {held} validation images, not {train['batch']}"
                )


def check_whole(study: Study, name: str, cases: CaseStore) -> None:
    """Who is judged needs an image of every modality: in a mix of stores perhaps no case has them."""
    modalities = study.sets[name].modalities
    for split in ("train", "val"):
        if not np.all([cases.has(m)[cases.split(split)] for m in modalities], axis=0).any():
            raise UserError(
                f"{place_of(study, name)}.modalities: no {split} case of the store at {cases.folder} has images of "
                f"{' and '.join(modalities)}, so none can be judged; judge on another data set, as linear@NAME does"
            )


def check_label(study: Study, cases: CaseStore) -> None:
    """The objective's label must be one of the cases, and its metric one that they can give."""
    label, metric = study.objective.label, study.objective.metric
    if label not in (*cases.classes, "mean"):
        raise UserError(
            f"objective.label: the cases have no label '{label}'; {nearest(label, [*cases.classes, 'mean'])}"
        )
    judged = cases.classes if label == "mean" else {label: cases.classes[label]}
    if judged and all(len(classes) < 2 for classes in judged.values()):
        alone = ", ".join(f"{each} {' '.join(classes)}" for each, classes in judged.items())
        raise UserError(f"objective.label: all cases are of one class, {alone}, so there is nothing to tell apart")
    named = [k for k, name in cases.domain.named.items() if name in cases.classes.get(k, ())]
    if metric.startswith("named_") and not named:
        raise UserError(
            f"objective.metric: '{metric}' needs a label with a class that papers report, such as diagnosis with MEL; "
            "the cases have none"
        )


def check_pairs(study: Study, space: Space, cases: CaseStore) -> None:
    """A task that pairs images of the same case needs cases that have them; the others' may be missing."""
    joint = [name for name, task in space.tasks.items() if task.joint]
    if not joint:
        return
    rows, modalities = training_rows(study, cases), study.main.modalities
    whole = int(np.all([cases.has(m)[rows] for m in modalities], axis=0).sum())
    if whole < 2:
        number = "no training case has" if whole == 0 else "only one training case has"
        raise UserError(
            f"data.modalities: {number} {' and '.join(modalities)} images in the store at {cases.folder}; "
            f"{joint[0]} pairs them"
        )


def check_tables(study: Study, space: Space, cases: CaseStore) -> None:
    """A column that has one value in all training cases tells a task nothing, and numbers of it have no scale."""
    readers = [name for name, task in space.tasks.items() if task.tables]
    if not readers or not study.main.metadata:
        return
    table = cases.table(study.main.metadata, training_rows(study, cases))
    for j, name in enumerate(study.main.metadata):
        values = np.unique(table.values[table.known[:, j], j])
        if len(values) < 2:
            said = "the same in all" if len(values) else "not known in any"
            raise UserError(
                f"data.metadata: '{name}' is {said} training cases of the store at {cases.folder}, so {readers[0]} "
                "learns nothing from it"
            )


def training_rows(study: Study, cases: CaseStore) -> np.ndarray:
    """The cases that the encoders are trained on."""
    return np.arange(len(cases)) if study.main.transductive else cases.split("train")


def smallest_pool(study: Study, cases: CaseStore, rows: np.ndarray | None = None) -> int:
    """How many images of these cases, or of the training cases, an encoder sees: the fewest, where branches differ."""
    rows = training_rows(study, cases) if rows is None else rows
    each = [int(cases.has(m)[rows].sum()) for m in study.main.modalities]
    return sum(each) if study.encoder.branches == "shared" else min(each)
