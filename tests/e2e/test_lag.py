"""Several proposals under way: the same are made inline, on one worker and on four, and after a kill."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from e2e.tiny import TINY, run, values

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.interrupted import kill_all, start
from dermsearch.results import load

STUDY = [
    *TINY,
    "curriculum.tasks={moco_v2: {queue: 32}, odc: {clusters: 2}, rotation: {}}",
    "train.epochs=1",
    "downstream={knn: {}}",
    "objective={protocol: knn, metric: auc, label: mean}",
    "search={sampler: curriculum_prior, budget: {stages: 7}, lag: 3, seeds: [0]}",
]


def proposed(folder: Path) -> list[tuple[Any, ...]]:
    """What was proposed, in its order, and what became of it."""
    trials = load(folder / "out").trials.select(["trial", "curriculum", "settings", "status", "value", "keys"])
    return [tuple(map(str, row.values())) for row in trials.to_pylist()]


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline")
    run(folder, *STUDY, "compute.engine=inline")
    assert len(proposed(folder)) > 4
    return folder


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("engine", "workers"),
    [pytest.param("inline", 1, marks=LONG), pytest.param("ray", 1, marks=LONG), ("ray", 4)],
)
def test_killed_it_goes_on_with_the_same_proposals(engine: str, workers: int, inline: Path, tmp_path: Path) -> None:
    study, mark = [*STUDY, f"compute.engine={engine}", f"compute.concurrency={workers}"], uuid.uuid4().hex
    going = start("curriculum_three.yaml", study, tmp_path, mark)
    try:
        until = time.monotonic() + 500
        while len(list((tmp_path / "store").glob("stages/*"))) < 4 and going.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        os.kill(going.pid, signal.SIGKILL)
    finally:
        kill_all(mark)
    summary, _ = run(tmp_path, *study)
    assert summary["stages"]["reused"] > 0
    assert proposed(tmp_path) == proposed(inline) and values(tmp_path) == values(inline)
