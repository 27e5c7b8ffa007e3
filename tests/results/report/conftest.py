"""A made-up study with all that a report draws: epochs, times, classes, confusions; and pages read back."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dermsearch.results import Results, load
from dermsearch.results.report import page
from dermsearch.results.tables.schema import build, write

CLASSES = ("MEL", "NEV")
HOSTILE = '<script>document.title="taken"</script><img src=x onerror=alert(1)>'

TASK = "<img src=x onerror='alert(1)'"  # what a task might be called: an arrow parts tasks


def filled(results: Results, epochs: int = 4, workers: int = 2) -> Results:
    """The same study with epochs, times, scores of classes and confusions; one task collapses."""
    stages, rows, scores, confusions = results.stages.to_pylist(), [], results.scores.to_pylist(), []
    for i, stage in enumerate(s for s in stages if s["status"] == "done"):
        turn, worker = divmod(i, workers)
        stage |= {"process": f"vm/{worker}", "began": 1e9 + 70 * turn, "ended": 1e9 + 70 * turn + 60 + worker}
        about = {"stage": stage["key"], **{n: stage[n] for n in ("curriculum", "root", "task", "seed")}}
        for epoch in range(1, epochs + 1):
            spread = 0.05 if stage["task"] == "odc" else 0.9
            row = {"epoch": epoch, "loss": 3 / epoch + i % 5 / 10, "parts": "{}", "embedding_std": spread}
            rows.append(about | row | {"effective_rank": 20.0 + i % 7})
    for key, curriculum in {row["stage"]: row["curriculum"] for row in scores}.items():
        own = {"stage": key, "curriculum": curriculum, "seed": 0, "protocol": "knn", "split": "val"}
        own |= {"label": "diagnosis"}
        for k, cls in enumerate(CLASSES):
            value = {"class": cls, "metric": "recall", "value": 0.5 + k / 10, "ci_low": 0.4, "ci_high": 0.7, "n": 50}
            scores.append(own | value)
            confusions += [own | {"truth": cls, "predicted": said, "count": 10 + k} for said in CLASSES]
    tables = {"stages": stages, "epochs": rows, "scores": scores, "confusions": confusions}
    for name, of in tables.items():
        write(build(name, of), results.folder / "tables" / f"{name}.arrow")
    return load(results.folder)


@pytest.fixture
def make_filled(make_study: Callable[..., Results]) -> Callable[..., Results]:
    """A made-up study with everything."""
    return lambda epochs=4, **options: filled(make_study(**options), epochs)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the script that draws: nobody looks at them."""
    monkeypatch.setattr(page, "library", lambda: "/* vega */")


def embedded_in(path: Path, name: str = "data") -> Any:
    """What a page's script works with."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found is not None
    return json.loads(found[1])


STUDY: Mapping[str, Any] = {
    "name": "skin",
    "curriculum": {"tasks": {"relative_location": {}, "moco_v2": {}, "odc": {}}, "length": [1, 3]},
    "encoder": {"name": "resnet10t"},
}
