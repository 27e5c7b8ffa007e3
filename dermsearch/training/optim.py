"""Optimisers and schedules as a stage asks for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def build(module: nn.Module, train: dict[str, Any], options: dict[str, dict[str, float]]) -> torch.optim.Optimizer:
    """SGD or AdamW; no decay on norms and biases; `options` overrides by parameter-name prefix."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        own = next((o for prefix, o in options.items() if name.startswith(prefix)), {})
        decay = own.get("weight_decay", train["weight_decay"]) if p.ndim > 1 else 0.0
        group = {"weight_decay": decay}
        if train["optimizer"] == "sgd":
            group["momentum"] = own.get("momentum", train["momentum"])
        groups.setdefault(tuple(sorted(group.items())), {"params": [], **group})["params"].append(p)
    # foreach: one fused pass instead of a Python loop over parameters
    if train["optimizer"] == "sgd":
        return torch.optim.SGD(list(groups.values()), lr=train["lr"], foreach=True)
    return torch.optim.AdamW(list(groups.values()), lr=train["lr"], foreach=True)


def rate(step: int, steps: int, train: dict[str, Any]) -> float:
    """The learning rate of a step: a linear climb over the first share `warmup`, then constant or a cosine to 0."""
    climb = round(train["warmup"] * steps)
    if step < climb:
        return train["lr"] * (step + 1) / (climb + 1)
    if train["schedule"] == "constant":
        return train["lr"]
    return train["lr"] * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))
