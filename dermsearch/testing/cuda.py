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
from dermsearch.training import optim, stage
from dermsearch.training.precision import autocast

CUDA = torch.device("cuda")
ROOM = 1 << 30  # bytes of images that the GPU which is not there takes


class Stepped(Exception):
    """A step has been tried; nobody goes on from there."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def on_cuda(train: Callable[[], object], waits: str = "") -> str:
    """What is wrong with the first step of the stage that is trained on a CPU, were it one on a GPU; empty if nothing.

    Of a task that `waits` only what comes before it reads a number is tried.
    """
    step = stage.forward_backward

    def tried(
        model: nn.Module,
        learner: stage.Learner,
        optimizer: object,
        pools: Mapping[str, CasePool],
        shares: Mapping[str, np.ndarray],
        at: tuple[int, int],
        recipe: stage.Recipe,
        cast: object,
    ) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True), patch.object(Tensor, "backward", without_gradients):
            move(learner)
            for pool in pools.values():
                pool.device = CUDA
                vars(pool).pop("resident", None)
            moved = optim.build(learner, recipe.train, learner.options())
            for group in moved.param_groups:  # of one kernel there is none that computes nothing
                group.update({"fused": False, "foreach": True} if "fused" in group else {})
            try:
                _, losses = step(learner, learner, moved, pools, shares, at, recipe, autocast(CUDA, "fp32"))
                for p in learner.parameters():
                    p.grad = torch.zeros_like(p) if p.requires_grad else None
                stage.clip(learner, recipe.train["clip"])
                moved.step()
                learner.tell("after_step", {b: own for b, _, own in losses[-len(pools) :]})
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                raise Stepped("" if waits else f"a step reads a number: {first_line(error)}") from error
            except RuntimeError as error:
                if ".numpy()" in str(error) and waits:
                    raise Stepped("") from error
                raise Stepped(first_line(error)) from error
        raise Stepped("")

    with (
        patch.object(stage, "forward_backward", tried),
        patch("dermsearch.data.store.pool.room", lambda device: ROOM if device.type == "cuda" else 0),
    ):
        try:
            train()
        except Stepped as done:
            return done.found
    return "it took no step"


def without_gradients(loss: Tensor, *given: Any, **more: Any) -> None:
    """In the place of `Tensor.backward`."""
    if loss.device.type != "cuda":
        raise RuntimeError(f"the loss lies on device {loss.device}")


def move(module: nn.Module) -> None:
    """What `module.to` does, which takes no tensors without numbers; a weight that has two names keeps both."""
    moved: dict[int, tuple[Any, Any]] = {}

    def there(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in moved:
            with torch.no_grad():
                copy = tensor.to(CUDA)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            moved[id(tensor)] = tensor, copy  # which lives as long as its name here
        return moved[id(tensor)][1]

    for each in module.modules():
        for own in (each._parameters, each._buffers):
            for name, tensor in own.items():
                own[name] = there(tensor)  # type: ignore[assignment]
