"""README's first command on a machine without a network, with a home that nobody can write to, in the locale C."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermsearch.results import load

ROOT = Path(__file__).parents[2]
# Namespaces of its own: no interface but loopback, and a file system at HOME that is read-only to root too.
APART = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-ec"]
BEGIN = 'ip link set lo up; mount -t tmpfs -o ro none "$HOME"; exec "$@"'


def alone(folder: Path, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command on such a machine, in that folder."""
    (folder / "home").mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "LC_ALL": "C", "PYTHONUTF8": "0"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    words = [*APART, BEGIN, "sh", *command]
    return subprocess.run(
        words, capture_output=True, cwd=folder, env=env, timeout=timeout, text=True, encoding="latin-1"
    )


@pytest.fixture
def lonely(tmp_path: Path) -> Path:
    """A folder in which commands can be run so."""
    missing = [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    tried = alone(tmp_path, "sh", "-c", 'tail -n +3 /proc/net/dev | cut -d: -f1; ! touch "$HOME/x"')
    if tried.returncode:
        pytest.skip(f"this kernel gives no namespaces: {tried.stderr.strip()}")
    assert tried.stdout.split() == ["lo"]
    return tmp_path


def first_command() -> list[str]:
    """README's first command that runs a study of the clone: its words, without the installation before it."""
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    pip install"))
    words = shlex.split(line)
    assert words[0] == "pip" and words.count("&&") == 1, "install, then run"
    return words[words.index("&&") + 1 :]


@pytest.mark.parametrize(
    "more",
    [
        ["--quick"],
        pytest.param(["--quick", "compute.engine=inline"], marks=pytest.mark.long),
        pytest.param([], marks=[pytest.mark.long, pytest.mark.timeout(3700)]),
    ],
    ids=["quick", "quick, inline", "whole"],
)
def test_the_first_command_of_the_readme_runs(lonely: Path, more: list[str]) -> None:
    """As it stands in the README, from a folder with the clone's studies.

    The gate has it with `--quick`, which takes fewer cases and epochs through all that the whole one does: that takes
    six minutes of two quiet cores, too long for a gate.
    """
    shutil.copytree(ROOT / "search_spaces", lonely / "search_spaces")
    program, *words = first_command()
    assert program == "dermsearch" and words[0] == "run"
    done = alone(lonely, sys.executable, "-m", program, *words, *more, timeout=600 if more else 3600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "no pre-training" in done.stdout and done.stdout.isascii()
    results = load(lonely / "results" / (Path(words[1]).stem + "-quick" * bool(more)))
    assert set(results.stages["status"].to_pylist()) == {"done"} and len(results.scores)
    assert {path.name for path in lonely.iterdir()} == {"home", "results", "search_spaces"}, (
        "nothing else is left in it"
    )
