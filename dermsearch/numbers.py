"""Random numbers that depend on (seed, epoch, unit, use) alone: on no state, batch, worker or order."""

from __future__ import annotations

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input changes half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, epoch: int, units: np.ndarray, use: str, count: int) -> np.ndarray:
    """(len(units), count) numbers in [0, 1), float64; `use` names what they are for."""
    with np.errstate(over="ignore"):
        state = _mix(np.array(seed, np.uint64) + _GOLDEN)
        for word in (epoch, zlib.crc32(use.encode())):
            state = _mix(state ^ (np.array(word, np.uint64) + _GOLDEN))
        rows = _mix(state ^ (np.asarray(units).astype(np.uint64) + _GOLDEN))  # (n,)
        grid = _mix(rows[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)[None, :])
    return (grid >> np.uint64(11)).astype(np.float64) * 2.0**-53
