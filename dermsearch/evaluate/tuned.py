"""The linear heads whose attention is looked at: a probe folded into one, or trained together with the backbone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dermsearch.errors import UserError
from dermsearch.evaluate.linear import regression
from dermsearch.models.attention import contrast


@dataclass(frozen=True)
class LinearHead:
    """Logits are `features @ weights.T + bias`."""

    weights: Tensor  # (classes, d)
    bias: Tensor

    def says(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of each row its class, and the weights (n, d) of what speaks for that class."""
        weights = self.weights.to(features)
        classes = (features @ weights.T + self.bias.to(weights)).argmax(1)
        return classes, contrast(weights, classes)


def probe(x: np.ndarray, truth: np.ndarray, classes: int, c: float, config: Any) -> LinearHead:
    """A logistic regression on standardised features, as a head on the features themselves."""
    known = truth >= 0
    x, truth = x[known].astype(np.float64), truth[known]
    weights, bias = np.zeros((classes, x.shape[1])), np.full(classes, -1e9)
    seen = np.unique(truth)
    bias[seen] = 0.0
    if len(seen) > 1:
        model, mean, spread = regression(x, truth, c, config)
        slopes, start = model.coef_, model.intercept_
        if len(seen) == 2:  # scikit-learn tells the second class's alone
            slopes, start = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-start, start]) / 2
        weights[seen], bias[seen] = slopes / spread, start - slopes @ (mean / spread)
    return LinearHead(torch.from_numpy(weights), torch.from_numpy(bias))


def tune(
    backbone: nn.Module,
    pixels: Callable[[np.ndarray], Tensor],
    truth: Mapping[str, np.ndarray],
    classes: Mapping[str, tuple[str, ...]],
    config: Any,
    seed: int,
) -> tuple[nn.Module, dict[str, LinearHead]]:
    """A copy of the backbone and linear heads, all trained on whole images; the last epoch counts.

    `pixels` gives the training images at some places. AdamW, its rate up for a tenth of the steps, then a cosine.
    """
    net, rng = copy.deepcopy(backbone), np.random.default_rng(seed)
    (cases,) = {len(values) for values in truth.values()}
    with torch.no_grad():
        first = net(pixels(np.arange(1)))
    widths = [len(classes[label]) for label in classes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = nn.Linear(first.shape[1], sum(widths)).to(first.device)
    targets = {label: torch.from_numpy(truth[label].astype(np.int64)).to(first.device) for label in classes}
    weigh = {label: weights_of(truth[label], len(classes[label]), config.balanced).to(first) for label in classes}
    batch = min(config.batch, cases)
    steps = config.epochs * (cases // batch)
    optimiser = torch.optim.AdamW([*net.parameters(), *heads.parameters()], lr=config.lr, weight_decay=0.01)
    climb, loss = max(1, steps // 10), torch.zeros(())  # of no labelled case nothing is learnt
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / climb, 0.5 + 0.5 * math.cos(math.pi * step / max(1, steps)))
    )
    net.train()
    for _ in range(config.epochs):
        order = rng.permutation(cases)
        for at in range(0, cases // batch * batch, batch):
            places = order[at : at + batch]
            logits = heads(net(pixels(places))).split(widths, 1)
            losses = [
                cross_entropy(each, targets[label][places], weigh[label], ignore_index=-1)
                for label, each in zip(classes, logits, strict=True)
                if (truth[label][places] >= 0).any()
            ]
            if not losses:
                continue
            loss = torch.stack(losses).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    if not math.isfinite(float(loss.detach())):
        raise UserError(f"attention: fine-tuning is not finite at lr {config.lr:g}; set a lower lr")
    parts = zip(classes, heads.weight.detach().split(widths), heads.bias.detach().split(widths), strict=True)
    return net.eval(), {label: LinearHead(weights, bias) for label, weights, bias in parts}


def weights_of(truth: np.ndarray, classes: int, balanced: bool) -> Tensor:
    """What each class weighs in the loss: alike in all, however many cases it has; nothing where it has none."""
    counts = np.bincount(truth[truth >= 0], minlength=classes)
    even = counts.sum() / (classes * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, even if balanced else 1.0, 0.0))
