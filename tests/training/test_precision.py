"""bf16 where it is asked for or where the hardware has it."""

import pytest
import torch
from torch import nn

from dermsearch.training import precision


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
@pytest.mark.parametrize("gpus", [0, 1])
def test_what_is_asked_for_is_done(asked, gpus):
    assert precision.resolve(asked, gpus) == asked


def test_auto(monkeypatch):
    assert precision.resolve("auto", 0.5) == "bf16"
    assert precision.resolve("auto", 0) in ("fp32", "bf16")
    monkeypatch.setattr(precision, "_native", lambda: False)
    assert precision.resolve("auto", 0) == "fp32"


@pytest.mark.parametrize("asked, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(asked, dtype):
    cast = precision.autocast(torch.device("cpu"), asked)
    for _ in range(2):  # a context can be made again and again
        with cast():
            assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
