"""A wheel, built without a network: its files alone run the first command of the pages, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dermsearch import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WHERE = "import dermsearch, dermsearch.study.finding as f; print(dermsearch.__file__, f.shipped_folder())"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*build, "-w", str(folder), str(ROOT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob(f"dermsearch-{__version__}-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def call(unpacked: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with the wheel's files first on its path, in another folder."""
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def test_it_holds_what_travels_and_nothing_else(unpacked: Path, tmp_path: Path) -> None:
    tops = {path.name for path in unpacked.iterdir()}
    assert tops == {"dermsearch", f"dermsearch-{__version__}.dist-info"}
    for name in ("search_spaces", "published"):
        there = ROOT / ("results/published" if name == "published" else name)
        assert {p.name for p in (unpacked / "dermsearch" / name).iterdir()} == {p.name for p in there.iterdir()}
    done = call(unpacked, tmp_path, "-c", WHERE)
    assert set(done.stdout.split()) == {
        str(unpacked / "dermsearch" / "__init__.py"), str(unpacked / "dermsearch" / "search_spaces")
    }, done.stderr  # fmt: skip


def test_it_runs_a_shipped_study_from_another_folder(unpacked: Path, tmp_path: Path) -> None:
    small = ["data.cases=60", "encoder.name=test_resnet", "--json"]
    done = call(unpacked, tmp_path, "-m", "dermsearch", "run", "curriculum.yaml", "--quick", *small)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["study"] == "curriculum-quick" and said["stages"]["trained"] == 2 and not said["stages"]["failed"]
    assert (tmp_path / "results" / "curriculum-quick" / "report.html").is_file()
