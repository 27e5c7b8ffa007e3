"""What training frees stays with the process: a step fetches few pages anew."""

import platform
import resource

import pytest
import torch

from dermsearch.training.memory import keep_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_a_large_tensor_made_again_takes_no_new_pages():
    assert keep_memory()
    size = 64 << 20

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(size, dtype=torch.uint8).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(5)) < size / 4096 / 20
