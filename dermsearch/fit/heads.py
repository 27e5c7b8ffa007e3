"""Heads for all labels at once: those that a stage hands on, or fresh linear ones; and how they are trained alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermsearch import world
from dermsearch.errors import UserError
from dermsearch.models.artifact import Part
from dermsearch.models.heads import GlobalDropout
from dermsearch.models.relations import label_heads
from dermsearch.numbers import uniforms

UNKNOWN = -1


def probabilities(logits: Sequence[Tensor], counts: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Soft-maxed logits by label, in double precision; `counts` are the training cases of each class.

    A class that has none has no probability; of a label that none has, all classes are alike.
    """
    found = {}
    for x, (label, count) in zip(logits, counts.items(), strict=True):
        absent = (torch.tensor(count) == 0).to(x.device, non_blocking=True)
        x = x.masked_fill(absent, -math.inf) if any(count) else torch.zeros_like(x)
        found[label] = x.detach().double().softmax(1)
    return found


class Heads(nn.Module):
    """Logits of every label: by what a stage hands on, or by fresh linear heads, with biases that start at zero.

    Heads that were made for other labels, as those of another data set are, are not taken.
    `counts` are the training cases of each class, by label. A class that has none is never predicted; of a label that
    none has, all classes are alike.
    """

    def __init__(self, dim: int, counts: Mapping[str, Sequence[int]], handed: Part | None, seed: int) -> None:
        super().__init__()
        self.counts = {label: tuple(each) for label, each in counts.items()}
        self.handed = None
        sizes = [len(each) for each in self.counts.values()]
        if handed is not None and (handed.config["dim"], list(handed.config["classes"])) == (dim, sizes):
            self.handed = label_heads(handed)
        else:
            generator = torch.Generator().manual_seed(seed)
            self.weights = nn.ParameterList(0.01 * torch.randn(c, dim, generator=generator) for c in sizes)
        self.biases = nn.ParameterList(torch.zeros(c) for c in sizes)
        for k, each in enumerate(self.counts.values()):
            absent = torch.tensor(each) == 0
            self.register_buffer(f"absent_{k}", absent & ~absent.all(), persistent=False)

    def forward(self, features: Tensor) -> list[Tensor]:
        scores = self.handed(features) if self.handed is not None else [features @ w.T for w in self.weights]
        return [
            (logits + bias).masked_fill(self.get_buffer(f"absent_{k}"), -math.inf)
            for k, (logits, bias) in enumerate(zip(scores, self.biases, strict=True))
        ]

    def probabilities(self, features: Tensor) -> dict[str, Tensor]:
        """Of every label, in double precision."""
        return probabilities(self(features), self.counts)


def counts_of(labels: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """How many cases each class has, by label; `sizes` are the labels' numbers of classes."""
    truth = {name: np.asarray(labels[name], np.int64) for name in sizes}
    return {name: tuple(np.bincount(t[t != UNKNOWN], minlength=sizes[name]).tolist()) for name, t in truth.items()}


def mean_loss(
    logits: Sequence[Tensor], truth: Tensor, weights: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each label over the cases that it is known of, then the mean over these labels; and accuracy.

    `truth` is (b, labels), -1 where unknown; the cases are those of the global batch. `weights` are of each label's
    classes, see `balance`.
    """
    each = [(x.to(torch.promote_types(x.dtype, torch.float32)), t) for x, t in zip(logits, truth.T, strict=True)]
    of = [None] * len(each) if weights is None else weights
    losses = [
        F.cross_entropy(x, t, None if w is None else w.to(x, non_blocking=True), ignore_index=UNKNOWN, reduction="sum")
        for (x, t), w in zip(each, of, strict=True)
    ]
    hits = [(x.detach().argmax(1) == t).sum() for x, t in each]
    return label_mean(losses, truth), label_mean(hits, truth)


def balance(counts: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """Of each label the weights of its classes in a loss: all classes weigh alike, and a case weighs 1 on average."""
    found = []
    for count in counts.values():
        cases = torch.tensor(count, dtype=torch.float64)
        found.append(cases.sum() / cases.clamp(min=1) / (cases > 0).sum().clamp(min=1))
    return found


def label_mean(sums: Sequence[Tensor], truth: Tensor) -> Tensor:
    """The mean over labels of the mean over cases, from each label's sum over this process's cases that it is known of.

    Processes may hold different numbers of labelled cases: each divides by everybody's, times the processes, because
    their mean is taken.
    """
    known = world.reduce_sum((truth != UNKNOWN).sum(0))
    labels = (known > 0).sum().clamp(min=1) / world.size()
    return (torch.stack(list(sums)) / known.clamp(min=1)).sum() / labels


def train_heads(heads: Heads, x: Tensor, truth: Tensor, config: Any, seed: int, name: str) -> None:
    """Train heads on features (n, dim) by AdamW at a constant rate, left in evaluation mode; the last epoch counts.

    `config` has lr, weight_decay, epochs and batch, and may ask for `balanced` classes.
    """
    labelled = (truth != UNKNOWN).any(1).nonzero()[:, 0]
    x, truth = x[labelled], truth[labelled]
    heads.eval()
    if not len(truth):
        return
    optimizer = torch.optim.AdamW(heads.parameters(), config.lr, weight_decay=config.weight_decay)
    dropouts = [m for m in heads.modules() if isinstance(m, GlobalDropout)]
    weights = balance(heads.counts) if getattr(config, "balanced", False) else None
    batch = min(config.batch, len(truth))
    steps = math.ceil(len(truth) / batch)
    heads.train()
    for epoch in range(1, config.epochs + 1):
        order = uniforms(seed, epoch, np.arange(len(truth)), f"{name}/order", 1)[:, 0].argsort(kind="stable")
        # The last batch is filled up from the epoch's front, so none is small.
        for step, cases in enumerate(torch.from_numpy(np.resize(order, (steps, batch))).to(x.device)):
            for dropout in dropouts:
                dropout.step = epoch * steps + step
            loss, _ = mean_loss(heads(x[cases]), truth[cases], weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not math.isfinite(loss.item()):
            raise UserError(f"downstream.{name}.lr: training diverged in epoch {epoch}; must be below {config.lr}")
    heads.eval()


@contextmanager
def own_randomness(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Torch for this process alone, with random numbers by that seed and so many threads; then all is as it was."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad(), world.alone():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
