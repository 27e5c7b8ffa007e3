"""A GPU that is not there: tensors say that they lie on it, and the CPU computes them, so numbers can be read.

What meets a tensor that was left on the host is refused, as on a real one. There are no gradients: whoever asks for
some asks the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
TAKES_BOTH = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}
ROOM = 1 << 30  # bytes of images that it takes


class Pretended(Tensor):
    """Of this device by its word, with numbers on the host."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> Pretended:
        found: Any = Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), dtype=host.dtype, layout=host.layout, device=CUDA
        )
        found.host = host
        return found

    @classmethod
    def __torch_dispatch__(cls, op: Any, *given: Any) -> Any:
        raise RuntimeError(f"{op}: outside of pretended_gpu()")

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


class Pretence(TorchDispatchMode):
    """Runs what is asked of pretended tensors on the CPU."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        there = [t for t in tensors if isinstance(t, Pretended)]
        name, device = op.overloadpacket.__name__, kwargs.get("device")
        if there and name not in TAKES_BOTH and any(t.dim() for t in tensors if not isinstance(t, Pretended)):
            raise RuntimeError(f"{name}: one of its tensors lies on the host, the others on the device")
        if device is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        args, kwargs = tree_map(lambda t: t.host if isinstance(t, Pretended) else t, (args, kwargs))
        found = op(*args, **kwargs)
        onto = bool(there) if device is None else torch.device(device).type == "cuda"
        if name == "copy_":
            onto = isinstance(tensors[0], Pretended)
        if not onto:
            return found
        same = {id(t.host): t for t in there}  # of what is changed in place
        return tree_map(lambda t: same[id(t)] if id(t) in same else Pretended(t) if isinstance(t, Tensor) else t, found)


def attention(*given: Any, **more: Any) -> Tensor:
    """Which kernel does it asks the driver."""
    return torch.ops.aten._scaled_dot_product_attention_math(*given, **more)[0]


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """In here there is one."""
    torch._C._ensureCUDADeviceGuardSet()  # one that asks no driver
    anew = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            Pretence(),
            patch("torch.cuda._lazy_init", lambda: None),
            patch.object(Tensor, "backward", lambda loss: None),
            patch("torch.cuda.get_rng_state", lambda device: None),
            patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            patch("torch.cuda.is_bf16_supported", lambda: True),
            patch("torch.cuda.set_rng_state", lambda state, device: None),
            patch("torch.nn.functional.scaled_dot_product_attention", attention),
            patch("dermsearch.data.store.pool.room", lambda device: ROOM if device.type == "cuda" else 0),
            torch.backends.cudnn.flags(enabled=False),
        ):
            yield CUDA
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(anew)
