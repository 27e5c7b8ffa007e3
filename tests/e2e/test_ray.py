"""Whole runs on Ray: the same numbers as without it, kills survived, clusters joined."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.tiny import TWO_TASKS, run, values
from pace import slowness

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.interrupted import interrupted, kill_all, manifests, marked, start, states
from dermsearch.results import load
from dermsearch.storage.stages import state_in

ONE_TASK = [*TWO_TASKS, "curriculum.length=[1,1]", "curriculum.tasks={moco_v2: {queue: 32}}"]


def test_ray_and_inline_agree_to_the_bit_and_ray_reuses(tmp_path: Path) -> None:
    (tmp_path / "inline").mkdir()
    (tmp_path / "ray").mkdir()
    study = [*TWO_TASKS, "moco_v2.lr={select: [0.01, 0.1], epochs: 1}"]
    run(tmp_path / "inline", *study, "compute.engine=inline")
    summary, said = run(tmp_path / "ray", *study)
    assert summary["stages"]["trained"] == 4
    assert values(tmp_path / "inline") == values(tmp_path / "ray")
    told = [load(tmp_path / engine / "out").segments.to_pylist() for engine in ("inline", "ray")]
    verdicts = [sorted((row["key"], row["verdict"]) for row in rows) for rows in told]
    assert verdicts[0] == verdicts[1] and len(verdicts[0]) == 4
    assert not [line for line in said.splitlines() if "Warning" in line or "(raylet)" in line or "INFO" in line], said
    assert "Starting Ray" in said
    again, said = run(tmp_path / "ray", *study)
    assert again["stages"]["reused"] == 4 and "Starting Ray" not in said


@pytest.mark.long
@pytest.mark.parametrize(("engine", "kills"), [("inline", 2), ("ray", 1)])
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(engine: str, kills: int, tmp_path: Path) -> None:
    report = interrupted(
        "curriculum_three.yaml", [*TWO_TASKS, "train.epochs=3", f"compute.engine={engine}"], kills, tmp_path
    )
    assert len(report.kills) == kills
    assert report.retrained == []
    assert report.equal


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_trial_goes_on_from_its_last_epoch(workers: int, tmp_path: Path) -> None:
    """With two, its workers' share is held by a controller that dies with it, and has to be given back."""
    study = [*ONE_TASK, "train.epochs=30", f"compute.workers={workers}", "compute.concurrency=1"]
    (tmp_path / "plain").mkdir()
    run(tmp_path / "plain", *study, *(["compute.engine=inline"] if workers == 1 else []))
    broken, mark = tmp_path / "broken", uuid.uuid4().hex
    broken.mkdir()
    going = start("curriculum_three.yaml", study, broken, mark)
    try:
        before = wait_for_epochs(broken, 5)
        trials = [p for p in marked(mark) if b"ImplicitFunc" in Path(f"/proc/{p}/cmdline").read_bytes()]
        assert len(trials) == 1
        os.kill(trials[0], signal.SIGKILL)
        going.communicate(timeout=300)
        assert going.returncode == 0
    finally:
        kill_all(mark)
    assert values(tmp_path / "plain") == values(broken)
    key = load(broken / "out").stages["key"][0].as_py()
    history = json.loads((broken / "store" / "stages" / key / "history.json").read_text())
    assert history[: len(before)] == before, "epochs that were finished were not trained again"
    assert len(history) == 30


def wait_for_epochs(folder: Path, count: int) -> list[dict]:
    """The history of a stage under way, once it has `count` epochs."""
    until = time.monotonic() + 500
    while time.monotonic() < until:
        for path in (folder / "store" / "partial").glob("*/progress.json"):
            rows = json.loads(path.read_text())
            if len(rows) >= count:
                return rows
        time.sleep(0.02)
    raise AssertionError((folder / "log.txt").read_text())


@pytest.mark.parametrize(("workers", "epochs"), [(1, 120), pytest.param(2, 30, marks=pytest.mark.long)])
def test_a_schedulers_notice_ends_a_run_and_nothing_is_lost(workers: int, epochs: int, tmp_path: Path) -> None:
    """Within the seconds that schedulers give, and though no state was due for long."""
    study = [*ONE_TASK, f"train.epochs={epochs}", f"compute.workers={workers}", "compute.save_every=3600"]
    (tmp_path / "plain").mkdir()
    peace = ["compute.engine=inline"] if workers == 1 else []  # nobody waits for Ray again
    run(tmp_path / "plain", *study, *peace)
    broken, mark = tmp_path / "broken", uuid.uuid4().hex
    broken.mkdir()
    going = start("curriculum_three.yaml", study, broken, mark)
    try:
        before = wait_for_epochs(broken, 3)
        assert not states(broken)
        began = time.monotonic()
        os.kill(going.pid, signal.SIGTERM)
        going.communicate(timeout=300)
        assert time.monotonic() - began < 30 * slowness()
    finally:
        kill_all(mark)
    said = (broken / "log.txt").read_text()
    assert going.returncode == 130, said
    assert said.endswith("Interrupted. The same command continues from here.\n") and "SIGTERM" not in said
    assert states(broken), f"none is left, and {len(manifests(broken))} of two nodes are done"
    (state,) = states(broken)
    saved = json.loads(state_in(state.read_bytes())["history"])
    assert saved[: len(before)] == before
    run(broken, *study, *peace)
    assert values(tmp_path / "plain") == values(broken)
    key = load(broken / "out").stages["key"][0].as_py()
    history = json.loads((broken / "store" / "stages" / key / "history.json").read_text())
    assert history[: len(saved)] == saved and len(history) == epochs, "what was saved was not trained again"


@pytest.mark.long
def test_two_workers_per_stage_give_the_scores_of_one(tmp_path: Path) -> None:
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        where = "ray" if workers > 1 else "inline"
        given = ["train.precision=fp32", f"compute.workers={workers}", f"compute.engine={where}"]
        summary, _ = run(tmp_path / str(workers), *ONE_TASK, *given)
        assert summary["stages"]["trained"] == 1
    one, two = (load(tmp_path / str(w) / "out") for w in (1, 2))
    assert two.stages["workers"].to_pylist() == [2]
    assert one.epochs["loss"].to_pylist() == pytest.approx(two.epochs["loss"].to_pylist(), rel=1e-4)


def test_what_the_cluster_can_never_hold_is_refused(tmp_path: Path) -> None:
    _, said = run(tmp_path, *ONE_TASK, "compute.threads=999", code=2)
    assert "999 CPUs" in said and "the cluster has" in said and "Traceback" not in said


@pytest.fixture
def two_nodes() -> Iterator[str]:
    """A Ray cluster of two nodes on this machine, one stage each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.long
def test_a_cluster_is_joined_and_both_of_its_nodes_train(two_nodes: str, tmp_path: Path) -> None:
    # Long enough that the second node has its process up before the first is through with both stages.
    summary, _ = run(tmp_path, *TWO_TASKS, "train.epochs=100", "--address", two_nodes)
    assert summary["stages"]["trained"] == 4
    nodes = set(load(tmp_path / "out").stages["node"].to_pylist())
    assert len(nodes) == 2, nodes


def test_a_stage_over_two_nodes_goes_on_when_one_is_lost(tmp_path: Path) -> None:
    """With another in its place; where none comes, the run waits for one."""
    from ray.cluster_utils import Cluster

    (tmp_path / "plain").mkdir()
    study = [*ONE_TASK, "train.epochs=12", "train.precision=fp32"]
    run(tmp_path / "plain", *study, "compute.engine=inline")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    mark = uuid.uuid4().hex
    try:
        lost = cluster.add_node(num_cpus=1)
        joined = [*study, "compute.workers=2", "--address", cluster.address]
        going = start("curriculum_three.yaml", joined, tmp_path, mark)
        before = wait_for_epochs(tmp_path, 3)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        going.communicate(timeout=300)
        assert going.returncode == 0, (tmp_path / "log.txt").read_text()
    finally:
        kill_all(mark)
        cluster.shutdown()
    one, two = load(tmp_path / "plain" / "out"), load(tmp_path / "out")
    assert two.stages["workers"].to_pylist() == [2] and len(two.epochs) == 12
    assert two.epochs["loss"].to_pylist()[: len(before)] == [row["loss"] for row in before], "none is trained again"
    # What rounding does to twelve epochs of so small a network.
    assert one.epochs["loss"].to_pylist() == pytest.approx(two.epochs["loss"].to_pylist(), rel=0.02)


def test_an_address_where_nothing_answers_is_a_message(tmp_path: Path) -> None:
    _, said = run(tmp_path, *ONE_TASK, "--address", "127.0.0.1:1", code=2)
    assert "no Ray cluster answers at '127.0.0.1:1'" in said and "Traceback" not in said
