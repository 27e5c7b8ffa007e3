"""The gate says no whatever fails in it, and runs the README's very test command. What it calls is a stub here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GATE = ROOT / ".ci" / "run"
INSTALL = "pip install -c constraints.txt -e"
CALLS = [
    "python3 -m venv",
    f"{INSTALL} .[test]",
    "pytest",
    f"{INSTALL} .[dev]",
    "ruff check .",
    "ruff format --check .",
    "mypy",
]
STUB = """\
#!/usr/bin/env bash
call="$(basename "$0") $*"
echo "$call" >> "$CALLS"
if [[ "$call" == "python3 -m venv "* ]]; then mkdir -p "$3/bin"; touch "$3/bin/activate"; fi
[[ "$call" != "$FAILS"* ]]
"""


def gate(folder: Path, fails: str) -> tuple[int, list[str]]:
    """Exit code and calls of the gate, where commands that begin so fail."""
    (folder / ".ci").mkdir()
    shutil.copy(GATE, folder / ".ci" / "run")
    stubs, calls = folder / "stubs", folder / "calls"
    stubs.mkdir()
    for name in {call.split()[0] for call in CALLS}:
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    words = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(calls), "FAILS": fails, "TMPDIR": str(folder)}
    done = subprocess.run([folder / ".ci" / "run"], env={**os.environ, **words}, capture_output=True, text=True)
    return done.returncode, calls.read_text().splitlines()


def test_the_gate_passes_where_nothing_fails(tmp_path: Path) -> None:
    code, calls = gate(tmp_path, "nothing")
    assert code == 0
    assert [call[: len(want)] for call, want in zip(calls, CALLS, strict=True)] == CALLS
    assert not list(tmp_path.glob("tmp.*")), "the virtual environment is left behind"


@pytest.mark.parametrize("number", range(len(CALLS)), ids=CALLS.__getitem__)
def test_the_gate_fails_where_any_command_does_and_goes_no_further(number: int, tmp_path: Path) -> None:
    code, calls = gate(tmp_path, CALLS[number])
    assert code != 0, f"green, although '{CALLS[number]}' failed"
    assert len(calls) == number + 1


def test_the_gate_runs_the_test_command_of_the_readme() -> None:
    [command] = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if "&& pytest" in line]
    assert any(line.startswith(command) for line in GATE.read_text().splitlines())
