"""Train a model that draws: an epoch is a pass over as many cases as there are, each class as often as the others.

Of the drawers of all epochs looked at, the one is kept whose images are nearest to *training* cases by KID, on the
features of a judge: a GAN does not get better for ever. The judge has learnt from real cases alone.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool, Look
from dermsearch.data.views.augment import plain
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import first_line
from dermsearch.generate.base import MODELS, Drawing, Model, conditions
from dermsearch.models.artifact import Part
from dermsearch.models.batchnorm import across_processes
from dermsearch.numbers import uniforms
from dermsearch.pretext.batch import epoch_order
from dermsearch.training.health import StageFailed
from dermsearch.training.memory import keep_memory
from dermsearch.training.stage import Report
from dermsearch.training.under_way import Partial, Unfit

Far = Callable[[np.ndarray], float]  # uint8 images (n, side, side, 3) -> how far from the training cases they are
TOGETHER = 256  # images that are drawn at once
HALF = ((0.5,) * 3, (0.5,) * 3)  # statistics by which pixels lie between -1 and 1


@dataclass(frozen=True)
class Making:
    """All that decides a generator beside the cases."""

    model: str
    config: dict[str, Any]  # the model's own settings, all given
    modality: str
    size: int
    label: str  # whose classes are seen equally often
    epochs: int
    batch: int
    every: int  # epochs between two looks at what is drawn
    looked: int  # images of a look
    seed: int


def train_generator(
    making: Making,
    cases: CaseStore,
    rows: np.ndarray,
    far: Far,
    partial: Partial,
    report: Report,
    device: torch.device,
) -> tuple[list[dict[str, Any]], Part]:
    """The history and the generator, from wherever it was left."""
    if device.type == "cpu":
        keep_memory()
    pool = CasePool(cases, (making.modality,), rows, device, Look(making.size))
    truth = np.stack([cases.label(label)[rows] for label in cases.classes], 1)
    drawing = Drawing(making.modality, making.size, channels_of(pool), cases.classes)
    told = conditions(truth, drawing.classes)
    model = fresh(making, drawing).to(device).to(memory_format=torch.channels_last)
    across_processes(model).train()
    model.drawer().eval()
    optimizers = model.optimizers()
    chances = evenly(truth[:, list(cases.classes).index(making.label)])
    batch = making.batch
    if batch % world.size():
        raise StageFailed(f"{making.model}: a batch of {batch} does not divide among {world.size()} workers")
    steps = -(-len(pool) // batch)
    asked = told[epoch_order(making.seed, making.epochs, len(pool), making.looked, True, chances)]  # at every look

    history: list[dict[str, Any]] = []
    best: dict[str, Tensor] = {}
    state = world.from_first(partial.load() if world.rank() == 0 else None)
    if state is not None:
        history, best = take_up(state, model, optimizers)
    for epoch in range(len(history), making.epochs):
        started, seen = time.perf_counter(), dict[str, list[Tensor]]()
        order = epoch_order(making.seed, epoch, len(pool), batch * steps, True, chances)
        for i in range(steps):
            own = world.mine(batch)
            units, step = order[i * batch : (i + 1) * batch][own], epoch * steps + i
            places = np.arange(batch)[own]

            def numbers(use: str, count: int, step: int = step, places: np.ndarray = places) -> np.ndarray:
                return uniforms(making.seed, step, places, use, count)

            condition = torch.from_numpy(told[units]).to(device)
            for name, value in model.step(real(pool, units, drawing), condition, numbers, optimizers).items():
                seen.setdefault(name, []).append(value)
        parts = {n: float(world.reduce_sum(torch.stack(v).mean())) / world.size() for n, v in seen.items()}
        if not np.isfinite(list(parts.values())).all():
            raise StageFailed(f"{making.model}: the losses of epoch {epoch + 1} are not finite: {parts}")
        row: dict[str, Any] = {"epoch": epoch + 1, "loss": sum(parts.values()), "parts": parts}
        last = epoch + 1 == making.epochs
        if last or (epoch + 1) % making.every == 0:
            with world.alone():
                row["kid"] = far(drawn(model, asked, making.seed, "looked", device))
            if row["kid"] == min(r["kid"] for r in [*history, row] if "kid" in r):
                best = {name: w.detach().cpu().clone() for name, w in model.drawer().state_dict().items()}
        history.append({**row, "seconds": time.perf_counter() - started})
        if world.rank() == 0 and not last and partial.left() <= 0:
            partial.save(
                {
                    "model": model.state_dict(),
                    "optimizers": [o.state_dict() for o in optimizers],
                    "best": best,
                    "history": json.dumps(history),
                }
            )
        report(history[-1])
    return history, model.part(best)


def fresh(making: Making, drawing: Drawing) -> Model:
    """A model whose weights are drawn by the seed."""
    kind: type[Model] = MODELS.find(making.model)
    config = kind.Config.model_validate(making.config)
    kind.check(config, making.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{making.seed}/{making.model}".encode()))
        return kind(config, drawing)


def take_up(
    state: dict[str, Any], model: Model, optimizers: list[torch.optim.Optimizer]
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Go on from a state; returns the epochs behind it and the best drawer so far."""
    try:
        model.load_state_dict(state["model"])
        for optimizer, own in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        return json.loads(state["history"]), dict(state["best"])
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise Unfit(first_line(error)) from None


def channels_of(pool: CasePool) -> int:
    """1 where every image is grey, else 3."""
    for start in range(0, len(pool), TOGETHER):
        pixels = pool.pixels(np.arange(start, min(start + TOGETHER, len(pool)))).pixels
        if not bool((pixels == pixels[:, :1]).all()):
            return 3
    return 1


def real(pool: CasePool, units: np.ndarray, drawing: Drawing) -> Tensor:
    """Whole images of the pool, between -1 and 1."""
    found = pool.pixels(units)
    return plain(Pictures(found.pixels, found.frame, *HALF), drawing.size)[:, : drawing.channels]


def evenly(classes: np.ndarray) -> np.ndarray:
    """The chance of each case, by which every class is drawn as often as the others; the unknown never."""
    counts = np.bincount(classes[classes >= 0])
    return np.where(classes >= 0, 1 / np.maximum(1, counts)[np.maximum(classes, 0)], 0.0)


@torch.no_grad()
def drawn(model: Model, told: np.ndarray, seed: int, use: str, device: torch.device) -> np.ndarray:
    """Images of these conditions as uint8 (n, side, side, 3); image i is the same in any number of them."""
    found = []
    for start in range(0, len(told), TOGETHER):
        rows = np.arange(start, min(start + TOGETHER, len(told)))
        x = model.draw(uniforms(seed, 0, rows, use, model.noise()), torch.from_numpy(told[rows]).to(device))
        pixels = x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu().permute(0, 2, 3, 1)
        found.append(pixels.expand(-1, -1, -1, 3).numpy())
    return np.concatenate(found)
