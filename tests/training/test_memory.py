"""What training frees stays with the process: large blocks come from its own heap, not anew from the system."""

import ctypes
import platform

import pytest
import torch

from dermsearch.training.memory import keep_memory

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Mallinfo(ctypes.Structure):
    """glibc's account of its memory: `arena` bytes of heap, of them `keepcost` at its end free; `hblks` mapped."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_a_large_tensor_comes_from_the_heap_which_keeps_it():
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    assert keep_memory()
    before = libc.mallinfo2()
    tensor = torch.empty(200 << 20, dtype=torch.uint8)
    during = libc.mallinfo2()
    assert during.hblks == before.hblks and during.uordblks - before.uordblks >= 200 << 20
    del tensor
    assert libc.mallinfo2().arena >= during.arena  # nothing was given back
