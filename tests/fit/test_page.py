"""A fit in a package of somebody else's, made by following docs/fits.md to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TABLES = """
import pathlib, pyarrow as pa
read = lambda name: pa.ipc.open_file(next(pathlib.Path().rglob(f"tables/{name}.arrow"))).read_all().to_pylist()
fits = [row for row in read("stages") if row["kind"] == "fit"]
print(*sorted(row["kind"] for row in fits), *sorted(row["task"] for row in fits))
assert {row["protocol"] for row in read("scores")} == {"focal"}
"""
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fits.md").read_text()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, installed apart from this environment."""
    folder = tmp_path_factory.mktemp("package")
    files = dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert set(files) == {"focal.py", "test_focal.py", "pyproject.toml", "study.yaml"}
    for name, text in files.items():
        (folder / name).write_text(text)
    pip = "pip install --no-deps --no-build-isolation --no-index --target site ."
    done = subprocess.run([sys.executable, "-m", *pip.split()], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def call(package: Path, command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that finds the package where it was installed."""
    path = os.pathsep.join([str(package / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)


def test_the_page_is_short() -> None:
    code = re.search(r"^class Focal.*?(?=^```$)", PAGE, re.MULTILINE | re.DOTALL)
    assert code is not None and len([line for line in code[0].splitlines() if line]) <= 40
    assert len(PAGE.splitlines()) <= 160


@pytest.mark.slow
def test_the_study_of_the_page_is_run(package: Path) -> None:
    small = ["data.cases=60", "data.size=32", "train.epochs=1", "train.batch=16", "downstream.focal.epochs=2"]
    command = [sys.executable, "-m", "dermsearch", "run", "study.yaml", "--json", *small]
    done = call(package, command, package)
    assert done.returncode == 0, done.stderr
    stages = call(package, [sys.executable, "-c", TABLES], package)
    assert stages.stdout.split() == ["fit", "fit", "focal", "focal"], stages.stderr or stages.stdout


@pytest.mark.slow
def test_the_check_of_the_page_passes_away_from_a_checkout(package: Path) -> None:
    done = call(package, [sys.executable, "-m", "pytest", "-q", "test_focal.py"], package)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
