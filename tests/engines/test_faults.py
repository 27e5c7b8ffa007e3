"""What goes wrong on a worker: a verdict on the stage, a death, a process that is sick from then on, a bug."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from e2e.tiny import TINY, run
from engines import faulty
from engines.jobs import some_job

from dermsearch.engines.inline import attempt
from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.storage.files import StoreLost
from dermsearch.training.health import StageFailed
from dermsearch.work import worker
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.verdicts import of_machine, verdict
from dermsearch.work.worker import Worker

STUDY = [*TINY, "curriculum.length=[1,1]", "curriculum.order=listed"]
STUDY += ["downstream={knn: {}}", "objective.protocol=knn"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose runs know the faulty tasks."""
    for name, value in faulty.installed(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def statuses(folder: Path) -> dict[str, str]:
    stages = load(folder / "out").stages
    return dict(zip(stages["task"].to_pylist(), stages["status"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StageFailed("loss is nan"), "loss is nan"),
        (UserError("no such thing"), "no such thing"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "odc: out of memory: CUDA out of memory."),
        (MemoryError(), "odc: out of memory: of the processor"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "odc: out of memory: DefaultCPU"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("[gloo] Connection closed by peer"), None),
        (OSError(28, "No space left on device"), None),
        (OSError(116, "Stale file handle"), None),
        (ValueError("a bug"), None),
    ],
)
def test_only_what_is_of_the_stages_settings_is_a_verdict(error: Exception, said: str | None) -> None:
    told = verdict(error, "odc")
    assert told is None if said is None else told is not None and told.startswith(said)


def test_a_job_that_is_no_verdict_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    job = some_job(task="odc")
    for error, status in ((StageFailed("loss is nan"), "failed"), (StoreLost("away"), "stopped"), (ValueError(), "")):

        def fails(job: Job, error: Exception = error) -> Record:
            raise error

        monkeypatch.setattr(worker, "_run", fails)
        if status:
            record = worker.run_job(job)
            assert record.status == status and record.error == str(error)
        else:
            with pytest.raises(ValueError):
                worker.run_job(job)


@pytest.mark.parametrize("sick", [OSError(28, "No space left on device"), torch.AcceleratorError("an assert")])
def test_inline_a_sick_process_ends_the_run_and_fails_no_stage(sick: Exception) -> None:
    assert of_machine(sick) and not of_machine(ValueError("a bug")) and not of_machine(FileNotFoundError(2, "gone"))

    def fails(error: Exception) -> Worker:
        def work(job: Job) -> Record:
            raise error

        return work

    record = attempt(fails(sick), some_job())
    assert record.status == "stopped" and "the same command continues" in record.error
    record = attempt(fails(ValueError("a bug\nin two lines")), some_job())
    assert record.status == "failed" and record.error == "ValueError: a bug" and "raise error" in record.traceback


@pytest.mark.slow
def test_inline_the_run_of_a_sick_process_is_a_sentence_and_continues(bench: Path) -> None:
    study = [*STUDY, "compute.engine=inline", "curriculum.tasks={sick: {}, rotation: {}, buggy: {}}"]
    _, said = run(bench, *study, code=2)
    assert "Stale file handle; once it can, the same command continues" in said and "Traceback" not in said
    assert "failed" not in statuses(bench).values()
    summary, _ = run(bench, *study, code=3)
    assert statuses(bench) == {"sick": "done", "rotation": "done", "buggy": "failed"}
    assert [f["error"] for f in summary["failures"]] == ["ValueError: a mistake of its author"]


@pytest.mark.slow
def test_on_ray_a_sick_process_is_replaced_and_a_bug_is_one_stages(bench: Path) -> None:
    study = [*STUDY, "compute.concurrency=1", "compute.retries=1"]
    summary, _ = run(bench, *study, "curriculum.tasks={sick: {}, rotation: {}, buggy: {}}", code=3)
    assert statuses(bench) == {"sick": "done", "rotation": "done", "buggy": "failed"}
    assert len({mark["pid"] for mark in faulty.marks(bench, "sick")}) == 2
    assert len({mark["pid"] for mark in faulty.marks(bench, "buggy")}) == 2, "tried again, in another process"
    (failure,) = summary["failures"]
    assert failure["error"] == "ValueError: a mistake of its author"
    (told,) = (bench / "out" / "errors").iterdir()
    assert "Traceback" in told.read_text() and "in strike" in told.read_text()


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_leave_together_with_the_reason_of_the_one_that_failed(bench: Path) -> None:
    study = [*STUDY, "compute.workers=2", "compute.retries=1", "curriculum.tasks={refusing: {}, dying: {}}"]
    summary, _ = run(bench, *study, code=3)
    assert statuses(bench) == {"refusing": "failed", "dying": "done"}
    assert [f["error"] for f in summary["failures"]] == ["refusing: does not like it on process 1"]
    (refused,), deaths = (faulty.marks(bench, task) for task in ("refusing", "dying"))
    assert len(deaths) == 2, "a death is tried again, a verdict is not"
    assert deaths[0]["time"] - refused["time"] < 120, "torch's own patience is half an hour"
