"""A task in a package of somebody else's, made by following docs/tasks.md to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
SMALL = ["data.cases=60", "data.size=32", "train.epochs=2", "train.batch=16"]


def call(package: Path, command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that finds the package where it was installed."""
    path = os.pathsep.join([str(package / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, installed apart from this environment, which keeps its own list of tasks."""
    folder = tmp_path_factory.mktemp("package")
    files = dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert set(files) == {"simsiam.py", "pyproject.toml", "study.yaml"}
    for name, text in files.items():
        (folder / name).write_text(text)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        "site",
    ]
    done = subprocess.run([*pip, "."], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (folder / "site" / "simsiam.py").exists()
    return folder


def test_the_page_says_thirty_lines_and_is_short_itself() -> None:
    code = re.search(r"^class SimSiam.*?(?=^```$)", PAGE, re.MULTILINE | re.DOTALL)
    assert code is not None and len([line for line in code[0].splitlines() if line]) <= 32
    assert len(PAGE.splitlines()) <= 160


def test_the_study_of_the_page_is_planned_and_run(package: Path) -> None:
    plan = call(package, [sys.executable, "-m", "dermsearch", "plan", "study.yaml"], package)
    assert plan.returncode == 0 and "simsiam" in plan.stdout, plan.stderr
    command = [sys.executable, "-m", "dermsearch", "run", "study.yaml", "--json", *SMALL]
    done = call(package, command, package)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["stages"] == {"proposed": 4, "trained": 4, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    scored = {row["curriculum"]: row["score"] for row in summary["rows"]}
    assert {"simsiam", "relative_location > simsiam", "simsiam > relative_location"} <= set(scored)
    assert all(0 <= score <= 1 for score in scored.values())
    assert "simsiam" in done.stderr  # the leaderboard is printed there

    from dermsearch.results import load

    epochs = load(package / "results" / "simsiam").pandas("epochs")
    assert len(epochs) == 4 * 2 and epochs.loss.notna().all()


def test_its_settings_are_checked_like_any_other(package: Path) -> None:
    for override, message in (
        ("simsiam.width=4", "curriculum.tasks.simsiam.width: must be at least 8, not 4"),
        ("simsiam.widht=64", "did you mean 'width'?"),
    ):
        done = call(package, [sys.executable, "-m", "dermsearch", "plan", "study.yaml", override], package)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_without_the_package_there_is_no_such_task(package: Path) -> None:
    command = [sys.executable, "-m", "dermsearch", "plan", str(package / "study.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "'simsiam' is not a task" in done.stderr


def test_the_contract_is_tested_as_the_page_says(package: Path) -> None:
    """Its line of pytest, with as many of its tests as a short while allows."""
    found = re.search(r"^```sh\nexport DERMSEARCH_TASKS='(.*)'\npython -m (pytest .*)\n```$", PAGE, re.MULTILINE)
    assert found is not None
    quick = ["-q", "--deselect", "tests/pretext/test_parity.py::test_loss_and_gradient_on_four_processes"]
    done = call(package, [sys.executable, "-m", *found[2].split(), *quick], ROOT, DERMSEARCH_TASKS=found[1])
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 12
