"""Built-in cases are drawn while Ray starts, which is said first: in an order that leaves Ray whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.run import run

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


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_who_is_interrupted_does_not_wait_until_all_are_drawn(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, study = threading.Event(), make_study(compute__engine=engine)
    cluster: Any = SimpleNamespace(load=lambda: None, open=lambda: None)
    for name in ("drop_damaged", "is_made"):
        monkeypatch.setattr(run, name, lambda *of: False)
    monkeypatch.setattr(run, "open_cases", lambda *of: drawn.wait(60))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run.open_or_draw(study.main, study, Path(), cluster, Console(quiet=True))
        assert time.monotonic() - began < 50
    finally:
        signal.signal(signal.SIGINT, before)
        drawn.set()


def test_what_is_wrong_with_a_drawing_beside_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*of: object) -> None:
        raise run.StoreLost("no room")

    cluster: Any = SimpleNamespace(load=lambda: None, open=lambda: None)
    for name in ("drop_damaged", "is_made"):
        monkeypatch.setattr(run, name, lambda *of: False)
    monkeypatch.setattr(run, "open_cases", refuse)
    study = make_study(compute__engine="ray")
    with pytest.raises(run.StoreLost, match=r"^no room$"):
        run.open_or_draw(study.main, study, Path(), cluster, Console(quiet=True))
