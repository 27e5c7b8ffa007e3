"""What every fit promises, see docs/fits.md."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.fit.base import FITS, is_fit
from dermsearch.models.artifact import PREDICTOR, Part
from dermsearch.nature import TARGET
from dermsearch.pretext.base import Target
from dermsearch.study.config import Train
from dermsearch.testing.claims import claim, named, numbered, probable, strict
from dermsearch.testing.cuda import on_cuda
from dermsearch.testing.group import on_each
from dermsearch.testing.pretended import pretended_gpu
from dermsearch.testing.small import (
    CASES,
    CPU,
    ROWS,
    SIZE,
    Interrupted,
    Kept,
    SmallStage,
    equal,
    interrupted,
    make_store,
    nothing,
    timeless,
)
from dermsearch.testing.waits import waits_of
from dermsearch.training.fits import predict_fit, train_fit
from dermsearch.training.stage import Trained

TRAIN, HELDOUT = ROWS[:32], ROWS[32:]
LOOK = Look(SIZE)


def check_fit(name: str, config: Mapping[str, Any], processes: int = 1) -> None:
    """The installed fit of that name, in settings of two epochs or more that suit 32 images of 32 pixels.

    With 2 or 4 `processes` these must come to what one comes to.
    """
    fit = named(FITS, name)
    claim(is_fit(fit), f"{name}: is a dermsearch.fit.base.Fit")
    numbered(fit)
    strict(name, fit.Config)
    claim(fit.nature.learns, f"{name}: its nature says that it learns")
    recipe = fit.recipe(fit.Config.model_validate(config))
    words = {"lr", "epochs", "batch"} <= recipe.keys() <= Train.model_fields.keys()
    claim(words, f"{name}: its recipe has lr, epochs and batch, and words of a study's `train` alone")
    claim(recipe["epochs"] >= 2, f"{name}: is checked with two epochs or more, to interrupt it between them")
    with tempfile.TemporaryDirectory() as folder:
        _check(name, config, Path(folder))
        if processes > 1:
            divides(name, config, Path(folder) / "store", processes)


def _check(name: str, config: Mapping[str, Any], folder: Path) -> None:
    store, plain, learnt = make_store(folder / "store"), np.arange(CASES) % 3, np.arange(CASES) < len(TRAIN)
    torch.manual_seed(1)
    whole = trained(name, config, store)
    part = whole.parts[PREDICTOR]
    says = predicted(part, store)
    claim(says.keys() == store.classes.keys(), f"{name}: predicts every label, {', '.join(store.classes)}")
    for label, classes in store.classes.items():
        probable(name, label, says[label], len(HELDOUT), len(classes))

    torch.manual_seed(2)
    np.random.seed(2)
    again = trained(name, config, store)
    alike = equal(again.parts[PREDICTOR].state, part.state) and timeless(again.history) == timeless(whole.history)
    claim(alike, f"{name}: draws no random numbers of its own, so two runs are equal to the bit")
    found = waits_of(lambda: trained(name, config, store))  # a run apart: its kernels round otherwise
    told = not found or FITS.find(name).waits
    claim(told, f"{name}: no step waits for the device, or `waits` says why: {', '.join(found)}")
    last = len(whole.history) - 1  # which may see what the first one does not
    for epoch, precision in ((0, "fp32"), (last, "bf16")):
        wrong = on_cuda(lambda: trained(name, config, store), FITS.find(name).waits, epoch, precision)
        claim(not wrong, f"{name}: a step runs on a GPU: {wrong}")

    with pretended_gpu() as device:
        there = predict_fit(part, store, HELDOUT, LOOK, device, "fp32")
        coarse = predict_fit(part, store, HELDOUT, LOOK, device, "bf16")
    for label, classes in store.classes.items():
        probable(name, label, coarse[label], len(HELDOUT), len(classes))
    near = all(np.allclose(there[label], says[label], atol=1e-4) for label in says)
    claim(near, f"{name}: predicts on a GPU what it predicts on a CPU")

    file = Part(json.loads(json.dumps(part.config)), load(save(part.state)))
    claim(equal(predicted(file, store), says), f"{name}: keeps what it needs to predict in weights and buffers")

    kept = Kept(step=True)
    with suppress(Interrupted):
        trained(name, config, store, kept, interrupted)
    kept.stops = 1  # the next state is within an epoch, where one has several steps
    with suppress(Interrupted):
        trained(name, config, store, kept)
    resumed = trained(name, config, store, kept).parts[PREDICTOR]
    claim(equal(resumed.state, part.state), f"{name}: resumed after an epoch and within one it is equal to the bit")

    held = make_store(folder / "held", np.where(learnt, plain, (plain + 1) % 3))
    seen = predicted(trained(name, config, held).parts[PREDICTOR], held)
    claim(equal(seen, says), f"{name}: does not look at the labels of held-out cases")
    other = make_store(folder / "other", np.where(learnt, (plain + ROWS % 2) % 3, plain))
    taught = predicted(trained(name, config, other).parts[PREDICTOR], other)
    claim(not equal(taught, says), f"{name}: learns from the labels of training cases")


def trained(
    name: str, config: Mapping[str, Any], store: CaseStore, kept: Kept | None = None, report: Any = nothing
) -> Trained:
    """The fit on 32 cases."""
    where = kept or Kept(), report, CPU, "fp32", LOOK
    pairs = "pairs" in FITS.find(name).nature.needs
    made = SmallStage("").encoders(("derm", "clinic"), "separate") if pairs else SmallStage("").encoders()
    target = Target(store, HELDOUT, LOOK) if TARGET in FITS.find(name).nature.needs else None
    return train_fit(name, config, 7, {}, made, store, TRAIN, *where, target=target)


def predicted(part: Part, store: CaseStore) -> dict[str, np.ndarray]:
    """What it says of the 16 others."""
    return predict_fit(part, store, HELDOUT, LOOK, CPU, "fp32")


def divides(name: str, config: Mapping[str, Any], folder: Path, processes: int) -> None:
    """Several processes come to what one comes to, to a thousandth of what lies between the cases."""
    one = foretold(name, config, str(folder))
    many = on_each(processes, foretold, name, config, str(folder))[0]
    for label, told in one.items():
        kept = np.abs(many[label] - told).max() <= 1e-3 * np.ptp(told, axis=0).max()
        claim(kept, f"{name}: {processes} processes come to what one comes to: its loss is a mean over processes")


def foretold(name: str, config: Mapping[str, Any], folder: str) -> dict[str, np.ndarray]:
    """What is said by the first process of those that train."""
    store = CaseStore(folder)
    part = trained(name, config, store).parts[PREDICTOR]
    return predicted(part, store) if world.rank() == 0 else {}
