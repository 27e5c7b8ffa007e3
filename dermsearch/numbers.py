"""Random numbers that depend on (seed, epoch, unit, use) alone: on no state, batch, worker or order."""

from __future__ import annotations

import zlib

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
ROUNDS, LAST = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)), 31  # shifts and factors of splitmix64


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input changes half of the output's."""
    for shift, factor in ROUNDS:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(LAST))


def state(seed: int, epoch: int, use: str) -> np.ndarray:
    """What the numbers of all units have in common, uint64 ()."""
    with np.errstate(over="ignore"):
        found = _mix(np.array(seed, np.uint64) + np.uint64(GOLDEN))
        for word in (epoch, zlib.crc32(use.encode())):
            found = _mix(found ^ (np.array(word, np.uint64) + np.uint64(GOLDEN)))
    return found


def uniforms(seed: int, epoch: int, units: np.ndarray, use: str, count: int) -> np.ndarray:
    """(len(units), count) numbers in [0, 1), float64; `use` names what they are for."""
    golden = np.uint64(GOLDEN)
    with np.errstate(over="ignore"):
        rows = _mix(state(seed, epoch, use) ^ (np.asarray(units).astype(np.uint64) + golden))  # (n,)
        grid = _mix(rows[:, None] + golden * np.arange(1, count + 1, dtype=np.uint64)[None, :])
    return (grid >> np.uint64(11)).astype(np.float64) * 2.0**-53
