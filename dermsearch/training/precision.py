"""bf16 where the hardware has it, CPUs too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch


def resolve(precision: str, gpus: float) -> str:
    """What `auto` means here: bf16 on GPUs and on CPUs that multiply bf16 natively, else fp32."""
    if precision != "auto":
        return precision
    if gpus:
        return "bf16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _native() else "fp32"


def _native() -> bool:
    """AVX-512 bf16 or AMX: without them oneDNN emulates bf16, slower than fp32."""
    flags = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in flags and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[None]]:
    """The context in which networks run."""
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
