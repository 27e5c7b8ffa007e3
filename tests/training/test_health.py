"""What ends a stage: numbers that are not finite, wherever they are, found without looking at all of them again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretext import tiny

from dermsearch.training import stage
from dermsearch.training.health import StageFailed, check_finite


def test_the_first_bad_step_is_named() -> None:
    good, bad = torch.tensor(1.0), torch.tensor(torch.nan)
    check_finite("odc", [good], [good], 3, 9)
    with pytest.raises(StageFailed, match="odc: loss is nan at step 5 of 9"):
        check_finite("odc", [good, bad], [good, good], 3, 9)


def test_every_step_is_looked_at_once(tmp_path, monkeypatch) -> None:
    """Not all steps of the epoch so far at every step: that is a square of their number."""
    looked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        stage, "check_finite", lambda task, seen, norms, before, steps: looked.append((len(seen), before))
    )
    tiny.train("rotation", tiny.make_store(tmp_path / "store"))
    assert looked == [(1, step) for step in range(6)]


def test_heads_that_diverge_at_the_last_step_end_the_stage(tmp_path, monkeypatch) -> None:
    """The encoders may still be finite: what comes of such a fit would be 'not probabilities'."""
    step = torch.optim.SGD.step

    def diverge(self, *given):
        step(self, *given)
        self.param_groups[0]["params"][-1].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", diverge)
    with pytest.raises(StageFailed, match="rotation: the weights are not finite after epoch 1"):
        tiny.train("rotation", tiny.make_store(tmp_path / "store"), batch=48, epochs=1)


def test_a_batch_holds_no_validation_image_twice(tmp_path) -> None:
    """It would be its own negative."""
    store = tiny.make_store(tmp_path / "store")
    given = tiny.recipe("simclr", patience=1), tiny.encoders(), store, np.arange(40), tiny.Kept(), print, tiny.CPU
    with pytest.raises(StageFailed, match="simclr: patience needs as many validation images as a batch has, not 8"):
        stage.train_stage(*given, heldout=np.arange(40, 48))
    assert len(stage.train_stage(*given, heldout=np.arange(32, 48)).history) == 2
