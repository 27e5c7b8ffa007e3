"""The smallest study that is whole, and how the tests run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import warm

TINY = [
    "data.cases=60",
    "data.size=32",
    "encoder.name=test_resnet",
    "train.batch=16",
    "train.epochs=2",
    "compute.save_every=0",
    "odc.clusters=2",
    "moco_v2.queue=32",
    "curriculum.length=[1,2]",
]
TWO_TASKS = [*TINY, "curriculum.tasks={moco_v2: {queue: 32}, odc: {clusters: 2}}"]


def run(folder: Path, *arguments: str, code: int = 0, out: str = "out") -> tuple[dict[str, Any], str]:
    """`dermsearch run curriculum.yaml ... --json` in a folder: (the summary, what it said on stderr)."""
    words = ["run", "curriculum_three.yaml", *arguments, "--json"]
    done = warm.run([*words, "--out", str(folder / out), f"compute.store={folder / 'store'}"], folder)
    assert done.returncode == code, done.stderr
    return (json.loads(done.stdout) if done.stdout.strip() else {}), done.stderr


def values(folder: Path, out: str = "out") -> list[tuple[Any, ...]]:
    """Every score of a run with its interval, sorted."""
    from dermsearch.results import load

    columns = ["stage", "curriculum", "protocol", "label", "class", "metric", "value", "ci_low", "ci_high", "seed"]
    scores = load(folder / out).scores
    return sorted(zip(*(scores[c].to_pylist() for c in columns), strict=True), key=str)
