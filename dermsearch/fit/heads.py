"""Heads for all labels at once and how they are trained: what `linear_handover` and `finetune` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermsearch.errors import UserError
from dermsearch.evaluate.base import UNKNOWN, Features
from dermsearch.evaluate.handover import Training
from dermsearch.models.artifact import Part
from dermsearch.models.heads import GlobalDropout
from dermsearch.models.relations import label_heads
from dermsearch.numbers import uniforms


class Heads(nn.Module):
    """Logits of every label: by what a stage hands on, or by fresh linear heads, with biases that start at zero.

    A class that no training case has is never predicted, as by the other protocols.
    """

    def __init__(self, dim: int, classes: Sequence[int], truth: np.ndarray, handed: Part | None, seed: int):
        super().__init__()
        self.handed = None
        if handed is not None:
            expected, given = (dim, list(classes)), (handed.config["dim"], list(handed.config["classes"]))
            if expected != given:
                raise ValueError(f"heads for (width, classes) {given} do not fit features of {expected}")
            self.handed = label_heads(handed)
        else:
            generator = torch.Generator().manual_seed(seed)
            self.weights = nn.ParameterList(0.01 * torch.randn(c, dim, generator=generator) for c in classes)
        self.biases = nn.ParameterList(torch.zeros(c) for c in classes)
        for k, c in enumerate(classes):
            absent = ~np.isin(np.arange(c), truth[:, k])
            self.register_buffer(f"absent_{k}", torch.from_numpy(absent & ~absent.all()), persistent=False)

    def forward(self, features: Tensor) -> list[Tensor]:
        found = self.handed(features) if self.handed is not None else [features @ w.T for w in self.weights]
        return [
            (logits + bias).masked_fill(self.get_buffer(f"absent_{k}"), -math.inf)
            for k, (logits, bias) in enumerate(zip(found, self.biases, strict=True))
        ]


def known_truth(features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Which training cases have any label known, and their classes (cases, labels), -1 where unknown."""
    truth = np.stack([features.train_labels[label] for label in features.classes], axis=1).astype(np.int64)
    rows = np.flatnonzero((truth != UNKNOWN).any(axis=1))
    return rows, truth[rows]


def fit(
    module: nn.Module,
    logits: Callable[[np.ndarray, int], list[Tensor]],
    truth: np.ndarray,
    config: Training,
    seed: int,
    name: str,
) -> None:
    """Train a module by AdamW at a constant rate; the last epoch counts. `logits` takes cases and the epoch."""
    if not len(truth):
        return
    optimizer = torch.optim.AdamW(module.parameters(), config.lr, weight_decay=config.weight_decay)
    target = torch.from_numpy(truth).to(next(module.parameters()).device)
    dropouts = [m for m in module.modules() if isinstance(m, GlobalDropout)]
    batch = max(2, min(config.batch, len(truth)))  # BatchNorm cannot learn from one
    steps = math.ceil(len(truth) / batch)
    module.train()
    for epoch in range(1, config.epochs + 1):
        order = uniforms(seed, epoch, np.arange(len(truth)), f"{name}/order", 1)[:, 0].argsort(kind="stable")
        # The last batch is filled up from the epoch's front, so none is small.
        for step, cases in enumerate(np.resize(order, (steps, batch))):
            for dropout in dropouts:
                dropout.step = epoch * steps + step
            loss = mean_loss(logits(cases, epoch), target[torch.from_numpy(cases).to(target.device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not math.isfinite(loss.item()):
            raise UserError(f"downstream.{name}.lr: training diverged in epoch {epoch}; must be below {config.lr}")


def mean_loss(logits: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of each label over the cases that it is known of, then the mean over these labels."""
    known = [(k, truth[:, k]) for k in range(len(logits)) if (truth[:, k] != UNKNOWN).any()]
    return torch.stack([F.cross_entropy(logits[k].float(), t, ignore_index=UNKNOWN) for k, t in known]).mean()


def probabilities(logits: Sequence[Tensor], features: Features, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Soft-maxed logits by label; of a label that no training case has, all classes alike."""
    found = {}
    for k, (label, names) in enumerate(features.classes.items()):
        if (truth[:, k] == UNKNOWN).all():
            found[label] = np.full((len(features.heldout), len(names)), 1 / len(names))
        else:
            found[label] = logits[k].detach().double().softmax(1).cpu().numpy()
    return found


@contextmanager
def own_randomness(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Torch with random numbers by that seed and so many threads; afterwards all is as it was."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
