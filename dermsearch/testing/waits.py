"""Where a step would wait for the device: its numbers are read on the host, a shape depends on them, or a copy is.

On a GPU the host runs ahead of the kernels that it queues, until it has to know what one of them found. Every such
operation is seen here on CPUs, whose tensors take the same way through torch. So does a copy from the host's plain
memory that is not `non_blocking`; these are seen on tensors that say that they are a GPU's, see `on_cuda`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

STEP = {"loss", "before_step", "after_backward", "after_micro", "after_step"}  # what the trainer calls at every step
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select"}
READS |= {"bincount", "histc", "repeat_interleave", "_unique2", "unique_dim", "unique_consecutive"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # by a mask: as many rows as it has ones


class Waits(TorchDispatchMode):
    """While this lasts, `found` counts what a step of a task or fit waits for: "odc.py:160 nonzero" and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        if name in READS or (name in INDEXED and any(i is not None and i.dtype == torch.bool for i in args[1])):
            step = [(f.f_code, line) for f, line in traceback.walk_stack(sys._getframe(1)) if ours(f.f_code)]
            if any(code.co_name in STEP for code, _ in step):
                code, line = step[0]
                self.found[f"{Path(code.co_filename).name}:{line} {name}"] += 1
        return op(*args, **(kwargs or {}))


class Copies(TorchDispatchMode):
    """While this lasts, what is copied between host and GPU, as above: what is `waited` for, and what is sent along."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.bytes = 0  # of what is sent along

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, more = op.overloadpacket.__name__, kwargs or {}
        if name in ("_to_copy", "copy_"):
            of = args[name == "copy_"]
            to = more.get("device") or args[0].device
            if of.device.type != torch.device(to).type and of.numel():
                self.note(name, of, more.get("non_blocking", any(args[2:])))
        elif name in INDEXED and args[0].device.type != "cpu":
            for index in args[1]:
                if index is not None and index.device.type == "cpu":
                    self.note(name, index, False)
        return op(*args, **more)

    def note(self, name: str, of: Tensor, free: bool) -> None:
        """One that the host waits for, or does not; a copy to the host is always waited for."""
        stack = traceback.walk_stack(sys._getframe(2))
        code, line = next(((f.f_code, line) for f, line in stack if ours(f.f_code)), (sys._getframe().f_code, 0))
        where = f"{Path(code.co_filename).name}:{line}"
        if free and of.device.type == "cpu":
            self.sent[f"{where} {name}"] += 1
            self.bytes += of.nbytes
        else:
            self.waited[f"{where} {name}"] += 1


def ours(code: CodeType) -> bool:
    """Is it of the package, or a step of a task or fit of another one?"""
    return f"{os.sep}dermsearch{os.sep}" in code.co_filename or code.co_name in STEP


def waits_of(steps: Callable[[], object]) -> dict[str, int]:
    """What is waited for within these steps."""
    with Waits() as waits:
        steps()
    return dict(waits.found)
