"""What a plan refuses at once, and what it lays out though it is not here yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.plan import make_plan, refuse


def study_of(folder: Path, data: dict[str, Any]) -> Any:
    tasks = {"tasks": {"rotation": {}}, "length": [1, 1]}
    return make_study(data=data, curriculum=tasks, compute__store=str(folder / "results"))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_and_is_no_case_store_is_not_planned(kind: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir() if kind == "folder" else (tmp_path / "docs").touch()
    data = {"source": "store", "path": str(tmp_path / "docs"), "size": 32}
    with pytest.raises(UserError, match=f"^data.path: there is no case store at {tmp_path}/docs; "):
        make_plan(study_of(tmp_path, data))


def test_a_store_that_is_not_here_yet_is_planned_and_then_refused_by_its_own_field(tmp_path: Path) -> None:
    data = {"drawn": {"size": 32, "cases": 80}, "ham": {"source": "store", "path": f"{tmp_path}/ham", "size": 32}}
    study = study_of(tmp_path, data)
    assert make_plan(study).stages == 1
    with pytest.raises(UserError, match=f"^data.ham.path: there is no case store at {tmp_path}/ham; "):
        refuse(study)
