"""Train a fit, and let it predict: the trainer of pretext tasks, on labelled cases."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.errors import UserError
from dermsearch.fit.adaptation import Adaptation
from dermsearch.fit.base import FITS, Fit, predictor
from dermsearch.fit.rate import ASIDE, rates_of
from dermsearch.models.artifact import PREDICTOR, Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.nature import TARGET
from dermsearch.numbers import uniforms
from dermsearch.pretext.base import Batch, Material, Target
from dermsearch.settings import Pixels
from dermsearch.training.choice import chosen
from dermsearch.training.learner import Recipe
from dermsearch.training.precision import autocast
from dermsearch.training.stage import Report, Trained, train_stage
from dermsearch.training.under_way import Partial

BATCH = 256  # cases that are predicted at once


def train_fit(
    name: str,
    config: Mapping[str, Any] | BaseModel,
    seed: int,
    artifact: Artifact,
    encoders: Encoders,
    cases: CaseStore,
    rows: np.ndarray,
    partial: Partial,
    report: Report,
    device: torch.device,
    precision: str,
    look: Look,
    compiled: bool = False,
    target: Target | None = None,
    pixels: Pixels = "auto",
) -> Trained:
    """Train the fit of that name on a copy of the encoders and the labelled ones among these rows of the store.

    One that adapts looks at the images of the `target`, too.

    The artifact that comes of it has one part, the predictor.
    """
    fit: type[Fit] = FITS.find(name)
    settings = fit.Config.model_validate(config)
    if TARGET in fit.nature.needs and target is None:
        raise ValueError(f"{name}: needs a target to adapt to")
    known = np.any([cases.label(label)[rows] >= 0 for label in cases.classes], axis=0)
    if not known.any():
        raise UserError(f"{name}: learns from labels, and none of the {len(rows)} training cases has one")
    learnt, kept = parted(rows[known], cases.groups()[rows[known]], fit.aside(settings), seed)

    def train(config: BaseModel, rows: np.ndarray, kept: Partial, say: Report) -> Trained:
        recipe = Recipe(name, config.model_dump(), fit.recipe(config), seed, precision, look)
        given = recipe, copy.deepcopy(encoders), cases, rows, kept, say, device
        return train_stage(*given, compiled=compiled, artifact=artifact, task=fit, target=target, pixels=pixels)

    if rates := rates_of(settings):
        tried, judged = parted(learnt, cases.groups()[learnt], ASIDE, seed)
        if not len(judged):
            raise UserError(f"{name}.lr: the labelled cases are of one patient, so none can be kept aside to choose by")

        def attempt(rate: float, kept: Partial) -> dict[str, np.ndarray]:
            found = train(settings.model_copy(update={"lr": rate}), tried, kept, lambda row: None)
            return predict_fit(found.parts[PREDICTOR], cases, judged, look, device, precision, pixels)

        truth = {label: cases.label(label)[judged].astype(np.int64) for label in cases.classes}
        rate, partial = chosen(rates, partial, attempt, truth)
        settings = settings.model_copy(update={"lr": rate})
    trained = train(settings, learnt, partial, report)
    part = trained.parts[PREDICTOR]
    if len(kept):
        module = predictor(part).to(device)
        truth = {label: torch.from_numpy(cases.label(label)[kept].astype(np.int64)) for label in cases.classes}
        with world.alone():
            shown = predicted_by(module, cases, kept, look, device, precision, module.shown, pixels)
            module.calibrate(shown, truth)
        part = module.hands_on()[PREDICTOR]
    if target is not None:
        part = introduced(part, target, seed, device, precision, pixels)
    return Trained(trained.history, {PREDICTOR: part})


def introduced(
    part: Part, target: Target, seed: int, device: torch.device, precision: str, pixels: Pixels = "auto"
) -> Part:
    """The predictor when it has met the target's images: statistics of BatchNorm are theirs, where it wants them.

    They come shuffled, in batches of one size.
    """
    module = predictor(part).to(device)
    if not isinstance(module, Adaptation) or not module.meets():
        return part
    order = target.rows[uniforms(seed, 0, np.arange(len(target.rows)), "introduced", 1)[:, 0].argsort(kind="stable")]
    whole = np.resize(order, -(-len(order) // BATCH) * BATCH) if len(order) > BATCH else order
    with world.alone(), module.meeting() as shown:
        predicted_by(module, target.cases, whole, target.look, device, precision, shown, pixels)
    return module.hands_on()[PREDICTOR]


def predict_fit(
    part: Part,
    cases: CaseStore,
    rows: np.ndarray,
    look: Look,
    device: torch.device,
    precision: str,
    pixels: Pixels = "auto",
) -> dict[str, np.ndarray]:
    """Class probabilities (rows, classes) by label, of cases with an image of every modality.

    One process of a group may ask for them alone.
    """
    with world.alone():
        predicted = predicted_by(predictor(part).to(device), cases, rows, look, device, precision, pixels=pixels)
    return {label: each.numpy() for label, each in predicted.items()}


@torch.no_grad()
def predicted_by(
    module: Fit,
    cases: CaseStore,
    rows: np.ndarray,
    look: Look,
    device: torch.device,
    precision: str,
    say: Callable[[Mapping[str, Batch]], dict[str, Tensor]] | None = None,
    pixels: Pixels = "auto",
) -> dict[str, Tensor]:
    """What a predictor says of rows of a store, in double precision on the CPU: what it predicts, or another thing."""
    say = say or module.predict
    module.to(memory_format=torch.channels_last)
    pools, cast = module.pools(Material(module.encoders, cases, rows, device, look)), autocast(device, precision)
    if any(len(pool) != len(rows) for pool in pools.values()):
        raise ValueError(f"{module.name}: cases without any image cannot be predicted")
    parts: dict[str, list[Tensor]] = {}
    coming = [np.arange(start, min(start + BATCH, len(rows))) for start in range(0, len(rows), BATCH)]
    with ExitStack() as ending:
        for pool in pools.values():
            ending.callback(pool.close)
            pool.where = pixels
            pool.expect(coming)
        for units in coming:
            with cast():
                said = say({m: Batch(units, pool, pool.size, 0, 0, 0) for m, pool in pools.items()})
            for label, each in said.items():
                parts.setdefault(label, []).append(each.double().cpu())
    return {label: torch.cat(each) for label, each in parts.items()}


def parted(rows: np.ndarray, groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to learn from and those to calibrate by: about that share of them, in whole groups."""
    kinds, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    order = uniforms(seed, 0, kinds, "aside", 1)[:, 0].argsort(kind="stable")
    aside = np.zeros(len(kinds), bool)
    aside[order] = size[order].cumsum() <= share * len(rows)
    return rows[~aside[group]], rows[aside[group]]
