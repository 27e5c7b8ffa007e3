"""Jobs that share a GPU, without one: who is there, and who has it alone."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
import torch
from engines.jobs import some_job

from dermsearch.work import shared_gpu, worker
from dermsearch.work.job import Job
from dermsearch.work.record import Judged, Record
from dermsearch.work.shared_gpu import Seat, seat_of

WAIT = 200.0  # seconds, long enough for what comes at once on any machine


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(shared_gpu, "gpu_in_use", lambda: "GPU-1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"dermsearch-gpu-{os.getuid()}-GPU-1"


def job(task: str, gpus: float = 0.5, **changes: object) -> Job:
    return some_job(kind="stage", key=task, task=task, curriculum=task, gpus=gpus, **changes)


def aside(what: Callable[[], object]) -> threading.Thread:
    """Done by somebody else meanwhile: a lock belongs to who opened the file, in one process too."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    return thread


def soon(what: Callable[[], bool]) -> bool:
    ends = time.monotonic() + WAIT
    while not what() and time.monotonic() < ends:
        time.sleep(0.01)
    return what()


def test_a_job_that_lacked_memory_has_the_gpu_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the neighbour and goes before who came later; that it does is told, with both names."""
    leaves, order, tried = threading.Event(), list[str](), threading.Event()

    def run(given: Job) -> Record:
        order.append(given.task)
        if given.task == "simclr":
            leaves.wait(WAIT)
        elif given.task == "odc" and order.count("odc") == 1:
            tried.set()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        order.append(f"{given.task} ends")
        return Record(key=given.key, status="done")

    monkeypatch.setattr(worker, "_run", run)
    asked, flock = list[tuple[threading.Thread, str, int]](), fcntl.flock

    def noted(file: IO[str], how: int) -> None:
        asked.append((threading.current_thread(), Path(file.name).name, how))
        flock(file, how)

    monkeypatch.setattr(shared_gpu.fcntl, "flock", noted)
    records: dict[str, Record] = {}
    threads = []
    for task in ("simclr", "odc", "rotation"):
        threads.append(aside(lambda task=task: records.update({task: worker.run_job(job(task))})))
        assert soon(lambda: bool(order)) and (task != "odc" or tried.wait(WAIT))
        if task != "simclr":  # until it stands at the door, or has come past it and waits for the room
            stands = (threads[-1], "room" if task == "odc" else "door", fcntl.LOCK_EX)
            assert soon(lambda stands=stands: stands in asked)
    assert order == ["simclr", "odc"], "rotation does not come in before odc"
    leaves.set()
    for thread in threads:
        thread.join(WAIT)
    assert order[2:5] == ["simclr ends", "odc", "odc ends"] and order[5:] == ["rotation", "rotation ends"]
    assert all(record.status == "done" for record in records.values()) and len(records) == 3
    assert records["odc"].notes == (
        "odc, seed 0: lacked memory on a GPU that it shared with simclr, seed 0; "
        "it went on alone; compute.gpus: 1 shares none",
    )
    assert not records["simclr"].notes and not records["rotation"].notes


def test_what_does_not_fit_alone_is_refused_after_two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def run(given: Job) -> Record:
        tries.append(1)
        judged = Judged(key="j", status="failed", reason="linear: out of memory: CUDA out of memory")
        return Record(key=given.key, status="done", judged=(judged,))

    monkeypatch.setattr(worker, "_run", run)
    record = worker.run_job(job("odc"))
    assert len(tries) == 2 and record.judged[0].status == "failed", "of a judgement too"
    assert record.notes == ("odc, seed 0: lacked memory on a GPU that it shared with others; so it does alone",)


@pytest.mark.parametrize("changes", [{"gpus": 1}, {"gpus": 0}, {"workers": 2}])
def test_only_who_shares_one_has_a_place(changes: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(worker, "_run", lambda given: tries.append(1) or _lacking())
    assert worker.run_job(job("odc", **changes)).status == "failed" and len(tries) == 1  # type: ignore[arg-type]


def _lacking() -> Record:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_nothing_of_a_job_stays_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was done, or failed by itself, or by the machine."""
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(worker, "_run", lambda given: Record(key=given.key, status="done"))
    worker.run_job(job("odc", gpus=1))
    monkeypatch.setattr(worker, "_run", lambda given: _lacking())
    worker.run_job(job("odc", gpus=1))
    assert len(emptied) == 2
    monkeypatch.setattr(worker, "_run", lambda given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.run_job(job("odc", gpus=1))
    assert len(emptied) == 3


def test_who_was_killed_is_not_there(one_gpu: Path) -> None:
    with seat_of(job("simclr")) as mine:
        (one_gpu / "left-by-a-kill.job").write_text("byol, seed 3")
        with ExitStack() as held:
            Seat(one_gpu, "rotation, seed 1", held)
            assert mine is not None and mine.others() == ["rotation, seed 1"]
        assert mine.others() == []


def test_a_folder_of_somebody_else_is_not_written_in(one_gpu: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    one_gpu.symlink_to(tmp_path / "theirs")
    with seat_of(job("simclr")) as mine:
        assert mine is None
    assert not list((tmp_path / "theirs").iterdir())
