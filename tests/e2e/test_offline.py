"""README's first command on a machine without a network, with a home that nobody can write to, in the locale C."""

from __future__ import annotations

import os
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


def alone(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on such a machine, in that folder."""
    (folder / "home").mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "LC_ALL": "C", "PYTHONUTF8": "0"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    words = [*APART, BEGIN, "sh", *command]
    return subprocess.run(words, capture_output=True, cwd=folder, env=env, timeout=600, text=True, encoding="latin-1")


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


@pytest.mark.parametrize("engine", ["ray", pytest.param("inline", marks=pytest.mark.long)])
def test_the_first_command_of_the_readme_runs(lonely: Path, engine: str) -> None:
    study = ROOT / "search_spaces" / "curriculum.yaml"
    small = ["data.cases=60", "encoder.name=test_resnet", f"compute.engine={engine}"]
    done = alone(lonely, sys.executable, "-m", "dermsearch", "run", str(study), "--quick", *small)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "no pre-training" in done.stdout and done.stdout.isascii()
    results = load(lonely / "results" / "curriculum-quick")
    assert set(results.stages["status"].to_pylist()) == {"done"} and len(results.scores)
    assert {path.name for path in lonely.iterdir()} == {"home", "results"}, "nothing else is left in it"
