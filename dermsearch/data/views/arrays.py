"""Formulas written once for arrays on the host (numpy) and on a device (torch), by the names that both have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermsearch import numbers

Array = Any  # of numpy, or a tensor


def space(x: Array) -> Any:
    """The module whose functions take it."""
    return torch if isinstance(x, Tensor) else np


def uniforms(seed: int, epoch: int, units: Array, use: str, count: int) -> Array:
    """`numbers.uniforms` of these units, drawn where they lie: the same on CPU and GPU, to the bit.

    A product of 64 bits wraps alike with a sign and without. It takes float64, which a device other than these two may
    lack; torch then refuses.
    """
    if not isinstance(units, Tensor):
        return numbers.uniforms(seed, epoch, units, use, count)
    state = signed(int(numbers.state(seed, epoch, use)))
    rows = mix(units + signed(numbers.GOLDEN) ^ state)  # (n,)
    places = torch.arange(1, count + 1, device=units.device) * signed(numbers.GOLDEN)
    return shifted(mix(rows[:, None] + places), 11).double() * 2.0**-53


def mix(x: Tensor) -> Tensor:
    """The hash of `numbers`, in place."""
    for shift, factor in numbers.ROUNDS:
        x ^= shifted(x, shift)
        x *= signed(factor)
    x ^= shifted(x, numbers.LAST)
    return x


def shifted(x: Tensor, by: int) -> Tensor:
    """To the right; the sign is not to be drawn in."""
    return (x >> by) & (2 ** (64 - by) - 1)


def signed(bits: int) -> int:
    """64 bits as int64 reads them."""
    return bits - 2**64 if bits >= 2**63 else bits
