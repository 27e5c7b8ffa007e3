"""A wheel, built without a network and installed by pip: what it brings works away from the checkout.

What it depends on is found where it is, in this environment, whose own dermsearch is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from dermsearch import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WHERE = "import dermsearch, dermsearch.study.finding as f; print(dermsearch.__file__, f.shipped_folder())"
PIP = [sys.executable, "-m", "pip"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "v", symlinks=True)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder), str(ROOT)]
    install = [*PIP, "--python", str(folder / "v"), "install", "--no-deps", "--no-index", "--quiet"]
    for command in (build, [*install, str(folder / f"dermsearch-{__version__}-py3-none-any.whl")]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    # A path alone: what makes the checkout's package importable here is done by files that are read at a start only.
    (site(folder / "v") / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "v"


def site(installed: Path) -> Path:
    """Where its packages lie."""
    (folder,) = (installed / "lib").glob("python*/site-packages")
    return folder


def call(installed: Path, folder: Path, *words: str, program: str = "dermsearch") -> subprocess.CompletedProcess[str]:
    """A program of that environment, in another folder."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(installed / "bin" / program), *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def test_it_holds_what_travels_and_nothing_else(installed: Path, tmp_path: Path) -> None:
    package = site(installed) / "dermsearch"
    tops = {path.name for path in site(installed).iterdir()}
    assert tops == {"dermsearch", f"dermsearch-{__version__}.dist-info", "dependencies.pth"}
    for name in ("search_spaces", "published"):
        there = ROOT / ("results/published" if name == "published" else name)
        assert {p.name for p in (package / name).iterdir()} == {p.name for p in there.iterdir()}
    done = call(installed, tmp_path, "-c", WHERE, program="python")
    assert set(done.stdout.split()) == {str(package / "__init__.py"), str(package / "search_spaces")}, done.stderr


def test_its_commands_find_studies_and_published_tables(installed: Path, tmp_path: Path) -> None:
    """Each is a start of its own, so there are few of them."""
    assert call(installed, tmp_path, "--version").stdout == f"dermsearch {__version__}\n"
    for words, said in (
        (["copy", "single_tasks", "-o", "mine.yaml"], "mine.yaml: change its name"),
        (["init", "first.yaml", "--yes"], "first.yaml"),
        (["plan", "first.yaml"], "no pre-training"),
        (["explain", "aiseeme_table1"], "last task"),
    ):
        done = call(installed, tmp_path, *words)
        assert done.returncode == 0 and said in done.stdout, f"{words}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "mine.yaml").read_text() == (ROOT / "search_spaces" / "single_tasks.yaml").read_text()


def test_it_runs_a_shipped_study_from_another_folder(installed: Path, tmp_path: Path) -> None:
    small = ["data.cases=60", "encoder.name=test_resnet", "--json"]
    done = call(installed, tmp_path, "run", "curriculum.yaml", "--quick", *small)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["study"] == "curriculum-quick" and said["stages"]["trained"] == 2 and not said["stages"]["failed"]
    assert (tmp_path / "results" / "curriculum-quick" / "report.html").is_file()
