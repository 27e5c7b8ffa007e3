"""Memory that training frees and takes again at every step stays with the process.

glibc hands large blocks back to the system at once; every step then fetches its activations anew, page by page, which
takes a tenth of the time of a step on a CPU.
"""

from __future__ import annotations

import ctypes
import functools

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@functools.cache
def keep_memory() -> bool:
    """Let this process keep what it frees, up to 2 GiB at the end of its heap; False where that cannot be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another system, another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
