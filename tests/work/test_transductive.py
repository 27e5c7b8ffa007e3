"""`data.transductive` decides whose images stages are trained on; labels that are judged stay unseen either way."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import Material, Task
from dermsearch.run.check import training_rows
from dermsearch.run.run import run_study


@pytest.mark.slow
@pytest.mark.parametrize("transductive", [False, True])
def test_the_cases_that_stages_train_on(transductive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[CaseStore, np.ndarray]] = []
    pools = Task.pools.__func__  # type: ignore[attr-defined]

    def recorded(cls: type[Task], given: Material) -> Any:
        seen.append((given.cases, given.rows))
        return pools(cls, given)

    monkeypatch.setattr(Task, "pools", classmethod(recorded))
    study = make_study(
        data={"cases": 80, "size": 32, "transductive": transductive},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        compute={"engine": "inline", "store": str(tmp_path / "store")},
    )
    assert not run_study(study, tmp_path / "out", None, Console(file=io.StringIO())).failed
    ((cases, rows),) = seen
    expected = np.arange(80) if transductive else cases.split("train")
    assert np.array_equal(rows, expected) and (len(expected) == 80) == transductive
    assert np.array_equal(training_rows(study, cases), expected), "what `plan` counts with"
