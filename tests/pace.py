"""How slow this machine is, for tests of time: their bounds are for a machine of 2025, and wider on a slower one."""

from __future__ import annotations

import time

import numpy as np

REFERENCE = 0.047  # seconds of `work` on the machine that bounds are for; one of 2019 without AVX-512 takes 0.118


def work() -> float:
    """Processor seconds of a loop of Python's and a sort of numpy's."""
    began, total, table = time.process_time(), 0, {}
    for i in range(300_000):
        total += i * i % 7
        table[i % 1000] = total
    np.arange(2_000_000, dtype=np.float64)[::-1].copy().sort()
    return time.process_time() - began


def slowness() -> float:
    """By how much bounds are multiplied: at least 1, at most 4, beyond which a bound says nothing."""
    return min(4.0, max(1.0, min(work() for _ in range(3)) / REFERENCE))
