"""Some hundreds of stories of a store, the same ones each time; `benchmarks/stories.py` tells any number."""

from __future__ import annotations

from pathlib import Path

import pytest
from endurance import command
from endurance.faults import Bucket
from endurance.machine import Endured, undisturbed
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


@pytest.mark.slow
@pytest.mark.parametrize("remote", [False, True], ids=["folder", "object store"])
def test_whatever_happens_to_a_store(remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with command.stage(tmp_path / "cases"):
        monkeypatch.setattr(Endured, "whole", undisturbed(tmp_path / "whole"), raising=False)
        monkeypatch.setattr(Endured, "remote", remote)
        if remote:
            Bucket.instead(monkeypatch, Path("/"))
        run_state_machine_as_test(
            Endured,
            settings=settings(
                max_examples=10,
                stateful_step_count=8,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
