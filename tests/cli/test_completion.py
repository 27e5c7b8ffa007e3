"""Completion: a script for each shell, and it completes commands, options and nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'dermsearch'; from dermsearch.cli.main import main; main()"]
UNDETECTED = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # so the shell is named, as where none is found


def call(words: list[str], **more: str) -> str:
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, env={**os.environ, **more}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "has"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --command")]
)
def test_a_shell_gets_its_script(shell: str, has: str) -> None:
    script = call(["--show-completion", shell], **UNDETECTED)
    assert has in script and "_DERMSEARCH_COMPLETE=complete_" in script


def test_it_is_installed(tmp_path: Path) -> None:
    said = call(["--install-completion", "bash"], HOME=str(tmp_path), **UNDETECTED)
    (script,) = tmp_path.rglob("dermsearch.sh")
    assert "_DERMSEARCH_COMPLETE" in script.read_text() and str(script.name) in said


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("dermsearch le", {"leaderboard"}),
        ("dermsearch data pre", {"prepare"}),
        ("dermsearch leaderboard --for", {"--format"}),
        ("dermsearch leaderboard x --format la", {"latex"}),
    ],
)
def test_words_are_completed(line: str, wanted: set[str]) -> None:
    place = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    assert set(call([], _DERMSEARCH_COMPLETE="complete_bash", **place).split()) == wanted
