"""LaTeX sets the tables as they are written, where it is installed (Debian: texlive-latex-recommended)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest_sm3 import sm3_study

from dermsearch.results.board.formats import as_latex
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.papers.files import latex
from dermsearch.results.papers.sm3 import FORMS
from dermsearch.results.papers.table import fill

NAMES = ("sm3_table1", "sm3_table2", "sm3_table3")
HEAD = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"


def wrong(tex: str, folder: Path) -> str:
    """What LaTeX says of it, unless it sets it; its fonts are no matter of ours."""
    (folder / "page.tex").write_text(f"{HEAD}{tex}\n\\end{{document}}\n", "utf-8")
    told = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(told, cwd=folder, capture_output=True, text=True, errors="replace", timeout=600)
    return done.stdout[-1500:] if done.returncode else ""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_tables_and_leaderboards_are_set(tmp_path: Path) -> None:
    study = {"name": "a_b.c-d", "published": [*NAMES], "encoder": {"weights": "imagenet.safetensors"}}
    results = sm3_study(tmp_path, study=study, caveats="100 % of #1 & {x}_y ~ 2^3 \\ <a|b>", failed={"proj": "$x$"})
    for name in NAMES:
        assert not wrong(latex(fill(results, FORMS[name])), tmp_path)
    assert not wrong(as_latex(leaderboard(results)), tmp_path)
    assert "Misplaced alignment" in wrong("a & b", tmp_path), "what is wrong is seen"
