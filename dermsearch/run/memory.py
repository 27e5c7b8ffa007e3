"""The memory that a worker needs, reckoned from what a pass through the backbone keeps for its gradient.

Activations are counted, nothing is computed. The rest of a step is small beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dermsearch.evaluate.base import PROTOCOLS, configure
from dermsearch.fit.base import is_fit
from dermsearch.models.encoders import backbone
from dermsearch.search.space.space import Space
from dermsearch.study.config import Study
from dermsearch.training.precision import autocast, resolve

OF_WEIGHT = 16  # bytes: itself, its gradient, and the two means of AdamW
OF_PROCESS = 0.9e9  # bytes that Python, torch and Ray take on the host


@dataclass(frozen=True)
class Need:
    """What one worker holds at the most, and in which task or fit."""

    bytes: float
    what: str
    batch: int  # of the step, over all workers


def need(study: Study, space: Space) -> Need:
    """The most that a task at its first settings, or a fit, needs of a GPU; of the host in a study without."""
    precision = resolve(study.train.precision, study.compute.gpus)
    process = 0.0 if study.compute.gpus else OF_PROCESS
    sizes = [sizes_of(name, study.main.size, precision) for name in study.encoder.names]
    found = []
    for what, batch, share, passes in steps(study, space):
        backbones = len(study.main.modalities) if study.encoder.branches == "separate" else 1
        held = max(weights * OF_WEIGHT * backbones + batch * share * passes * kept for kept, weights in sizes)
        found.append(Need(process + held, what, batch))
    return max(found, key=lambda each: each.bytes, default=Need(process, "judging", 0))


def steps(study: Study, space: Space) -> Iterator[tuple[str, int, float, float]]:
    """Of every task and fit: its name, the batch, the share of it in one forward pass of a worker, passes an image."""
    seen = len(study.main.modalities)
    for name, task in space.tasks.items():
        settings = space.settings(name, {})
        train, config = settings["train"], task.Config.model_validate(settings["config"])
        at_once = seen if task.joint or study.encoder.branches == "separate" else 1  # images of a unit, or branches
        share = 1 / (study.compute.workers * train["accumulate"])
        yield name, train["batch"], share, task.cost(config, space.size) * at_once
    for entry in study.entries.values():
        fit: Any = PROTOCOLS.find(entry.protocol)
        if is_fit(fit):
            recipe, data = fit.recipe(configure(entry.protocol, entry.config)), study.sets[entry.data]
            passes = len(data.modalities) * (data.size / study.main.size) ** 2
            yield entry.name, recipe["batch"], 1 / study.compute.workers, passes


@cache
def sizes_of(name: str, size: int, precision: str) -> tuple[float, int]:
    """Bytes that an image keeps of its way through a backbone until the gradient is back, and the weights of that."""
    with torch.device("meta"):
        network = backbone(name).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        few, more = (kept_of(network, torch.empty(n, 3, size, size), precision) for n in (2, 4))
    return (more - few) / 2, sum(p.numel() for p in network.parameters())


def kept_of(network: Callable[[Tensor], object], images: Tensor, precision: str) -> int:
    """Bytes of all that autograd keeps of a forward pass, weights among it; what is kept twice lies there once."""
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(images.device, precision)():
        network(images)
    return sum(storage.nbytes() for storage in kept.values())
