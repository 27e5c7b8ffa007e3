"""Networks and their maps lie in memory as convolutions are fastest: the colours of a pixel side by side."""

from typing import Any

import pytest
import torch
from pretext import tiny
from torch import nn


@pytest.mark.parametrize("task", ["simclr", "moco_v2", "paired_contrast"])
def test_a_stage_trains_with_colours_last(task, tmp_path, monkeypatch):
    store, made, forward, seen = tiny.make_store(tmp_path / "store"), tiny.encoders(task), nn.Conv2d.forward, []

    def seeing(of: nn.Conv2d, x: torch.Tensor) -> Any:
        maps = forward(of, x)
        seen.append(all(t.is_contiguous(memory_format=torch.channels_last) for t in (of.weight, maps)))
        return maps

    monkeypatch.setattr(nn.Conv2d, "forward", seeing)
    tiny.train(task, store, made, epochs=1)
    assert len(seen) > 9 and all(seen)
