"""What dies on Ray at a chosen moment: a worker, or a whole node of a cluster (a raylet with all of its workers).

Every process of a run reads a hook when it starts, which ends its victim right before the first write of a file whose
name matches a moment: the state of an epoch (training), a stage's second file (between the files of a commit), a
judgement. Kills of the driver, and at every other moment, are tried without Ray in tests/search.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.tiny import TINY, run, values

from dermsearch.results import load

STUDY = [*TINY, "curriculum.tasks={odc: {clusters: 2}}", "curriculum.length=[1,1]", "downstream={knn: {}}"]
STUDY += ["objective.protocol=knn", "compute.retries=9"]
TRAINING, COMMITTING, JUDGING = r"partial/.*/state\.pt", r"stages/.*/history\.json", r"scores/.*\.json"
HOOK = """
import os, re, signal, sys

def victims():
    parent = os.getppid()
    with open(f"/proc/{parent}/comm") as name:
        raylet = name.read().strip() == "raylet"
    return [os.getpid()] if os.environ["DIE_WHO"] == "worker" else [parent, os.getpid()] if raylet else []

def write(self, name, data):
    for number, moment in enumerate(os.environ["DIE_AT"].split(";")):
        if re.search(moment, name):
            try:
                open(os.path.join(os.environ["DIE_MARKS"], str(number)), "x").close()
            except FileExistsError:
                continue
            for victim in victims():
                os.kill(victim, signal.SIGKILL)
    whole(self, name, data)

if any("default_worker" in word for word in sys.orig_argv):
    from dermsearch.storage.files import Folder
    whole, Folder._write = Folder._write, write
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """The scores of a run in peace."""
    folder = tmp_path_factory.mktemp("plain")
    run(folder, *STUDY, "compute.engine=inline")
    return values(folder)


@pytest.fixture
def doomed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose runs carry the hook; `marks` in it holds a file per kill."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "marks").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    path = [str(tmp_path / "hook"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("DIE_MARKS", str(tmp_path / "marks"))
    return tmp_path


def kills(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "marks").iterdir())


def test_workers_die_training_committing_and_judging(
    doomed: Path, undisturbed: list[tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIE_WHO", "worker")
    monkeypatch.setenv("DIE_AT", ";".join((TRAINING, COMMITTING, JUDGING)))
    summary, _ = run(doomed, *STUDY)
    assert kills(doomed) == ["0", "1", "2"]
    assert summary["stages"]["failed"] == 0 and values(doomed) == undisturbed


@pytest.fixture
def three_nodes(doomed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head that trains nothing and two nodes of one CPU; the node that first saves an epoch is lost."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("DIE_WHO", "raylet")
    monkeypatch.setenv("DIE_AT", TRAINING)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.long
def test_a_node_of_a_cluster_dies_and_another_goes_on(three_nodes: str, doomed: Path, undisturbed: list[tuple]) -> None:
    summary, said = run(doomed, *STUDY, "--address", three_nodes)
    assert kills(doomed) == ["0"], said
    assert summary["stages"]["failed"] == 0 and values(doomed) == undisturbed
    assert load(doomed / "out").stages["status"].to_pylist() == ["done"]
