"""Optimisers and schedules as a stage asks for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

# What neither the study nor the task's authors say.
FALLBACK: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.03,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "weight_decay_end": None,
    "schedule": "cosine",
    "warmup": 0.0,
    "final_lr": 0.0,
    "milestones": (),
    "factor": 0.1,
    "clip": None,
    "accumulate": 1,
    "patience": 0,
}
# The rate of an optimiser that a task's authors did not use, for a batch of RATED: theirs is for another one.
RATES = {"sgd": 0.03, "adamw": 1e-3, "lars": 0.3}
RATED = 256
# Parameters of more than one dimension that are no weights of a layer; backbones of timm name more of their own.
EMBEDDINGS = {"pos_embed", "cls_token", "reg_token", "dist_token", "mask_token"}


def build(module: nn.Module, train: dict[str, Any], options: dict[str, dict[str, float]]) -> torch.optim.Optimizer:
    """SGD, AdamW or LARS; no decay on norms, biases, tokens and position embeddings.

    `options` overrides weight_decay and momentum by parameter-name prefix.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    free = undecayed(module)
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        own = next((o for prefix, o in options.items() if name.startswith(prefix)), {})
        weight = name not in free
        group: dict[str, Any] = {
            "weight_decay": own.get("weight_decay", train["weight_decay"]) if weight else 0.0,
            "scheduled": weight and "weight_decay" not in own,  # does its decay follow the stage's schedule?
        }
        if train["optimizer"] != "adamw":
            group["momentum"] = own.get("momentum", train["momentum"])
        if train["optimizer"] == "lars":
            group["adapted"] = weight
        groups.setdefault(tuple(sorted(group.items())), {"params": [], **group})["params"].append(p)
    # One pass over all parameters instead of a loop in Python; on a GPU in one kernel, equal to rounding.
    fast: dict[str, Any] = {"fused" if next(module.parameters()).is_cuda else "foreach": True}
    if train["optimizer"] == "sgd":
        return torch.optim.SGD(list(groups.values()), lr=train["lr"], **fast)
    if train["optimizer"] == "lars":
        return LARS(list(groups.values()), lr=train["lr"])
    return torch.optim.AdamW(list(groups.values()), lr=train["lr"], **fast)


def undecayed(module: nn.Module) -> set[str]:
    """The parameters that weight decay and LARS's adaptation leave alone, by full name."""
    found = {n for n, p in module.named_parameters() if p.ndim < 2 or n.rpartition(".")[2] in EMBEDDINGS}
    for where, part in module.named_modules():
        told = getattr(part, "no_weight_decay", None)  # timm's own list
        if callable(told):
            found |= {f"{where}.{name}" if where else name for name in told()}
    return found


class LARS(torch.optim.Optimizer):
    """SGD whose every weight moves in proportion to its own length. (You et al. 2017)

    lightly's adapts what has a decay, so that `weight_decay: 0` would silently make it plain SGD, and it makes a
    GPU wait twice per parameter. Here `adapted` says what is adapted, whatever its decay, and nothing waits.
    """

    def __init__(self, params: Any, lr: float, trust: float = 0.001) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.9, "weight_decay": 0.0, "adapted": True, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Decay, adapt, remember, move."""
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
            moves = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            if group["adapted"]:
                lengths = torch.stack(torch._foreach_norm(params))
                slopes = torch.stack(torch._foreach_norm(grads))
                ratio = group["trust"] * lengths / (slopes + group["weight_decay"] * lengths)
                ratio = torch.where((lengths > 0) & (slopes > 0), ratio, 1.0)
                torch._foreach_mul_(moves, list(ratio.unbind()))
            for p, move in zip(params, moves, strict=True):
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(move)
            kept = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(kept, group["momentum"])
            torch._foreach_add_(kept, moves)
            torch._foreach_add_(params, kept, alpha=-group["lr"])


def set_step(optimizer: torch.optim.Optimizer, step: int, steps: int, train: dict[str, Any]) -> float:
    """Give every group the rate and the decay of this step; returns the rate."""
    lr, weight_decay = rate(step, steps, train), decay(step, steps, train)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["scheduled"]:
            group["weight_decay"] = weight_decay
    return lr


def rate(step: int, steps: int, train: dict[str, Any]) -> float:
    """The learning rate of a step: a linear climb over the first share `warmup`, then by `schedule`.

    constant; cosine, towards `final_lr` times the rate; or step, times `factor` at each of `milestones`, which
    are shares of the whole stage.
    """
    climb = round(train["warmup"] * steps)
    if step < climb:
        return train["lr"] * (step + 1) / (climb + 1)
    if train["schedule"] == "constant":
        return train["lr"]
    if train["schedule"] == "step":
        return train["lr"] * train["factor"] ** sum(step >= round(m * steps) for m in train["milestones"])
    down = 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))
    return train["lr"] * (train["final_lr"] + (1 - train["final_lr"]) * down)


def decay(step: int, steps: int, train: dict[str, Any]) -> float:
    """The weight decay of a step: constant, or by a cosine over the whole stage to `weight_decay_end`."""
    start, end = train["weight_decay"], train["weight_decay_end"]
    if end is None:
        return start
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))
