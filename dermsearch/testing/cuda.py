"""Would a step run on a GPU? Its numbers are given out as CUDA's and nothing is computed, so no GPU is needed.

What is left on the host meets the rest, which torch refuses as it does on a real one. Gradients are taken for zeros: a
backward pass asks for the driver, and makes no tensors that its forward pass did not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from dermsearch.data.store.pool import CasePool
from dermsearch.errors import first_line
from dermsearch.testing.waits import Copies
from dermsearch.training import optim, stage
from dermsearch.training.precision import autocast

CUDA = torch.device("cuda")
ROOM = 1 << 30  # bytes of images that the GPU which is not there takes


class Stepped(Exception):
    """A step has been tried; nobody goes on from there. It says what was found."""


def on_cuda(
    train: Callable[[], object],
    waits: str = "",
    epoch: int = 0,
    precision: str = "fp32",
    copies: Copies | None = None,
) -> str:
    """What is wrong with the first step of an epoch of a stage trained on a CPU, were it one on a GPU; empty if none.

    Of a task that `waits` only what comes before it reads a number is tried. `copies` may be looked at afterwards.
    """
    step, seen = stage.forward_backward, copies or Copies()

    def tried(
        model: nn.Module,
        learner: stage.Learner,
        optimizer: torch.optim.Optimizer,
        pools: Mapping[str, CasePool],
        shares: Mapping[str, np.ndarray],
        at: tuple[int, int],
        recipe: stage.Recipe,
        cast: Any,
    ) -> tuple[Tensor, Any]:
        if at[0] < epoch:
            return step(model, learner, optimizer, pools, shares, at, recipe, cast)
        with FakeTensorMode(allow_non_fake_inputs=True), patch.object(Tensor, "backward", without_gradients):
            move(learner)
            for pool in pools.values():
                pool.device = CUDA
                vars(pool).pop("resident", None)
            moved = optim.build(learner, recipe.train, learner.options())
            for group in moved.param_groups:  # of one kernel there is none that computes nothing
                group.update({"fused": False, "foreach": True} if "fused" in group else {})
            assert all(pool.resident for pool in pools.values())  # as they are before an epoch's first step
            try:
                with seen:
                    casts = autocast(CUDA, precision)
                    _, losses = step(learner, learner, moved, pools, shares, at, recipe, casts)
                    for p in learner.parameters():
                        p.grad = torch.zeros_like(p) if p.requires_grad else None
                    stage.clip(learner, recipe.train["clip"])
                    moved.step()
                    learner.tell("after_step", {b: own for b, _, own in losses[-len(pools) :]})
                    if coarse := {str(loss.value.dtype) for _, loss, _ in losses} - {"torch.float32"}:
                        raise Stepped(f"its loss is {', '.join(coarse)}")
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                if not waits:
                    raise Stepped(f"it reads a number: {first_line(error)}") from error
            except RuntimeError as error:
                if not (waits and ".numpy()" in str(error)):
                    raise Stepped(first_line(error)) from error
        raise Stepped(f"it waits for a copy: {', '.join(seen.waited)}" if seen.waited else "")

    with (
        patch.object(stage, "forward_backward", tried),
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda: True),
        patch("dermsearch.data.store.pool.room", lambda device: ROOM if device.type == "cuda" else 0),
    ):
        try:
            train()
        except Stepped as done:
            return str(done)
    return "it took no step"


def without_gradients(loss: Tensor, *given: Any, **more: Any) -> None:
    """In the place of `Tensor.backward`."""
    if loss.device.type != "cuda":
        raise RuntimeError(f"the loss lies on device {loss.device}")


def move(module: nn.Module, device: torch.device = CUDA) -> None:
    """What `module.to` does, which takes no tensors without numbers; a weight that has two names keeps both."""
    moved: dict[int, tuple[Any, Any]] = {}

    def there(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in moved:
            with torch.no_grad():
                copy = torch.empty_like(tensor, device=device)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            moved[id(tensor)] = tensor, copy  # which lives as long as its name here
        return moved[id(tensor)][1]

    for each in module.modules():
        for own in (each._parameters, each._buffers):
            for name, tensor in own.items():
                own[name] = there(tensor)  # type: ignore[assignment]
