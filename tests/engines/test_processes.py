"""Processes of a Ray of one's own: as many as there are stages at once, and each of them stays."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from e2e.tiny import TINY, run
from ray import ObjectRef
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache
from rich.console import Console

from dermsearch.engines.ray_mended import KeptProcesses, keep_processes, try_again_for_want_of_memory
from dermsearch.run.run import run_study
from dermsearch.study.load import load_study

STAGES = 16
STUDY = {
    "name": "many",
    "data": {"cases": 40, "size": 32},
    "encoder": {"name": "test_resnet"},
    "curriculum": {
        "tasks": {"rotation": {"lr": {"choice": [round(0.01 + n / 1000, 3) for n in range(STAGES)]}}},
        "length": [1, 1],
    },
    "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
    "downstream": {"knn": {"k": 5}},
    "objective": {"protocol": "knn"},
}


def test_tune_keeps_all_that_are_free_to_its_end() -> None:
    whole, kept = _ObjectCache(may_keep_one=True), KeptProcesses(may_keep_one=True)
    assert [whole.cache_object("share", n) for n in (1, 2)] == [True, False], "Tune itself keeps one"
    assert all(kept.cache_object("share", n) for n in (1, 2))
    assert list(kept.flush_cached_objects()) == [] and kept.num_cached_objects == 2
    assert kept.pop_cached_object("share") == 1
    assert list(kept.flush_cached_objects(force_all=True)) == [2] and kept.num_cached_objects == 0


def test_a_trial_waits_for_its_process_that_starts_and_the_free_one_takes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, reused = tune_controller.TuneController, list[str]()
    monkeypatch.setattr(tune_controller, "_ObjectCache", _ObjectCache)  # put back behind the test
    monkeypatch.setattr(controller, "_maybe_reuse_cached_actor", lambda self, trial: bool(reused.append(trial)) or True)
    for _ in range(2):
        keep_processes()
    assert tune_controller._ObjectCache is KeptProcesses
    held = SimpleNamespace(_trial_to_actor={"starts": 1, "begins": 2}, _resetting_trials={"begins"})
    said = [controller._maybe_reuse_cached_actor(held, trial) for trial in ("starts", "begins", "waits")]
    assert said == [False, True, True] and reused == ["begins", "waits"]


def test_a_process_that_was_ended_for_want_of_memory_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune took it for a bug of its own, and ended the run with a traceback of a hundred lines."""
    monkeypatch.setattr(RayActorManager, "_actor_task_failed", RayActorManager._actor_task_failed)
    for _ in range(2):
        try_again_for_want_of_memory()
    told, lost = list[Exception](), OutOfMemoryError("2 workers were killed")
    actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(error))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=lost)
    assert manager._failed_actor_ids == {"a"}
    assert [(type(error), str(error)) for error in told] == [(RayActorError, "2 workers were killed")] * 2
    with pytest.raises(RuntimeError, match="unexpected"):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=ValueError("a bug"))


def test_a_process_that_was_ended_before_it_said_a_word_has_said_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune asked it once more when it told of its end, and its answer, that memory had run out, ended the run."""

    def lost(_: object) -> None:
        raise OutOfMemoryError("2 workers were killed")

    monkeypatch.setattr(Trial, "_get_default_result_or_future", Trial._get_default_result_or_future)
    monkeypatch.setattr(RayActorManager, "_actor_task_failed", RayActorManager._actor_task_failed)
    monkeypatch.setattr("ray.get", lost)
    try_again_for_want_of_memory()
    trial = SimpleNamespace(_default_result_or_future=ObjectRef.nil(), temporary_state=SimpleNamespace(ray_actor=None))
    assert Trial._get_default_result_or_future(trial) is None and trial._default_result_or_future is None


@pytest.mark.slow
@pytest.mark.long
def test_where_ray_ends_every_process_for_want_of_memory_a_stage_fails_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    study = [*TINY, "curriculum.length=[1,1]", "curriculum.tasks={rotation: {}}", "compute.retries=1"]
    summary, said = run(tmp_path, *study, "train.epochs=10000", code=3)
    assert [failure["error"] for failure in summary["failures"]] == [
        "its worker process died again and again; the machine may lack memory"
    ]
    assert "Traceback" not in said


@pytest.mark.slow
def test_no_process_is_replaced_while_short_stages_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process takes seconds to start, a stage here a fraction of one: the second was ended before it was there."""
    started, add = [], RayActorManager.add_actor
    monkeypatch.setattr(RayActorManager, "add_actor", lambda self, **of: started.append(of) or add(self, **of))
    compute = {"engine": "ray", "store": str(tmp_path / "store"), "concurrency": 2}
    outcome = run_study(load_study({**STUDY, "compute": compute}), tmp_path / "out", None, Console(file=io.StringIO()))
    assert outcome.summary["stages"]["trained"] == STAGES and not outcome.failed
    assert len(started) == 2
