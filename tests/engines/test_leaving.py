"""Processes that train together leave together: within seconds, with the reason of the one that failed first."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
from engines import faulty
from engines.jobs import some_job

from dermsearch.engines.ray_train import on_workers
from dermsearch.work.job import Job
from dermsearch.work.record import Record

SECONDS = 120  # on a busy machine; torch's own patience is half an hour


def collective(job: Job) -> Record:
    """Stands in for training: sums over the processes, until something befalls the second one."""
    import torch
    import torch.distributed as dist

    for step in range(8):
        if step == 5 and dist.get_rank() == 1:
            Path(job.settings["mark"]).touch()
            if job.settings["status"] == "stopped":
                return Record(key=job.key, status="stopped", error="of process 1")
            raise ValueError("of process 1")
        dist.all_reduce(torch.ones(1))
    return Record(key=job.key, status="done")


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray of two CPUs in this process, which sends its workers this module's functions by value."""
    import ray
    from ray import cloudpickle

    from dermsearch.engines.ray_cluster import Cluster
    from dermsearch.study.config import Compute

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Cluster(Compute(), None) as cluster:
        cluster.open()
        yield
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param("stopped", "of process 1", marks=pytest.mark.long),
        ("failed", "ValueError: of process 1"),
    ],
)
def test_ray_trains_workers_leave_together(status: str, error: str, ray_here: None, tmp_path: Path) -> None:
    """The store is lost to one of them; one meets a bug. Verdicts and deaths are in test_faults.py."""
    job = some_job(settings={"status": status, "mark": str(tmp_path / "mark")}, workers=2)
    record = on_workers(collective, job, str(tmp_path / "ray"))
    assert time.time() - (tmp_path / "mark").stat().st_mtime < SECONDS
    assert (record.status, record.error) == (status, error)
    assert status == "stopped" or "in collective" in record.traceback


def test_a_group_has_the_time_that_a_lost_node_takes_to_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray Train's controller is told, when it is asked to start a group."""
    from ray.train import torch
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    told: list[str] = []

    class Trainer:
        return_value = Record(key="k", status="done").model_dump_json()

        def __init__(self, *given: object, **named: object) -> None:
            told.append(get_env_vars_to_propagate()["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"])

        def fit(self) -> Trainer:
            return self

    monkeypatch.setattr(torch, "TorchTrainer", Trainer)
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
    assert on_workers(collective, some_job(workers=2), "nowhere").status == "done"
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "7")  # what a user has said
    on_workers(collective, some_job(workers=2), "nowhere")
    assert float(told[0]) >= 300 and told[1] == "7"


def train(rank: int, folder: str) -> None:
    """A stage on two processes without Ray; what became of it on each, in a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch.distributed as dist
    from pretext import tiny

    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.pretext import base
    from dermsearch.work.verdicts import verdict

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    base.TASKS.shipped["refusing"] = "engines.faulty:Refusing"
    tiny.TASKS["refusing"] = {}
    try:
        tiny.train("refusing", CaseStore(Path(folder) / "store"))
    except Exception as error:
        (Path(folder) / f"{rank}.json").write_text(json.dumps([verdict(error, "refusing"), str(error)]))


@pytest.mark.slow
def test_without_ray_a_process_that_leaves_frees_the_others_and_they_blame_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretext import tiny

    tiny.make_store(tmp_path / "store")
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv(faulty.MARKS, str(tmp_path / "marks"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    context = get_context("spawn")
    processes = [context.Process(target=train, args=(rank, str(tmp_path)), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    until = time.monotonic() + 200
    while not faulty.marks(tmp_path, "refusing") and time.monotonic() < until:
        time.sleep(0.05)
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0, "they have left"
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert said[1] == ["refusing: does not like it on process 1"] * 2
    assert said[0][0] is None, f"no verdict: {said[0][1]}"
