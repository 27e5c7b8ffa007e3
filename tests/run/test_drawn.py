"""Built-in cases are drawn while Ray starts, which is said first: in an order that leaves Ray whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# cv2, which drawing imports, sets `sys.path` back to what it was when its own import began. Where Ray's import ran at
# that time, the packages that Ray brings along were found no more, and the run ended in a traceback.
CODE = """
import io
import sys
from pathlib import Path
from rich.console import Console
from dermsearch.engines.ray_cluster import Cluster
from dermsearch.run import run
from dermsearch.study.load import load_study

seen = []
study = load_study("curriculum.yaml")
cluster = Cluster(study.compute, None)
cluster.open = lambda: None
run.drop_damaged = run.is_made = lambda data, cache: False
console = Console(file=io.StringIO())
run.open_cases = lambda data, cache: seen.append(("ray" in sys.modules, console.file.getvalue()))
run.open_or_draw(study.main, study, Path(), cluster, console)
sys.exit(seen != [(True, "Drawing 2,400 cases of 64 px ...\\n")])
"""


@pytest.mark.slow
def test_it_is_said_and_ray_is_there_before_anything_is_drawn_beside_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
