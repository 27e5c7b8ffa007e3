"""A notice on Ray: one word of the run's, which every process hears in time and no other run does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from engines.jobs import some_job
from ray.experimental import internal_kv

from dermsearch.engines import ray_notice, ray_train
from dermsearch.training.notice import TOLD, Noticed
from dermsearch.work.job import Job
from dermsearch.work.record import Record


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[str, str]]]:
    """What the head keeps."""
    kept: set[tuple[str, str]] = set()
    monkeypatch.setattr(internal_kv, "_internal_kv_put", lambda key, _, namespace: kept.add((key, namespace)))
    monkeypatch.setattr(internal_kv, "_internal_kv_exists", lambda key, namespace: (key, namespace) in kept)
    monkeypatch.setattr(ray_notice, "EVERY", 0.01)
    yield kept
    TOLD.given = False


def heard(seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not TOLD.given and time.monotonic() < until:
        time.sleep(0.01)
    return TOLD.given


def test_it_is_heard_by_who_trains_for_that_run(words: set[tuple[str, str]]) -> None:
    with ray_notice.listening("tune/one"):
        ray_notice.give("tune/other")
        assert not heard(0.3) and len(words) == 1
        ray_notice.give("tune/one")
        assert heard()
    assert not TOLD.given, "what this process does next is of another run"
    with pytest.raises(KeyboardInterrupt), ray_notice.listening("tune/one"):
        pytest.fail("what has not begun does not begin")


def test_a_head_that_is_lost_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: object, **named: object) -> None:
        raise RuntimeError("GCS is unavailable")

    monkeypatch.setattr(internal_kv, "_internal_kv_exists", lost)
    monkeypatch.setattr(internal_kv, "_internal_kv_put", lost)
    ray_notice.give("tune/one")
    with ray_notice.listening("tune/one"):
        assert not heard(0.3)


def test_a_worker_of_several_leaves_with_a_record_that_blames_nothing() -> None:
    def work(job: Job) -> Record:
        ray_notice.give("tune/one")
        if heard():
            raise Noticed
        return Record(key=job.key, status="done")

    with pytest.raises(ray_train.Leaving) as left:
        ray_train._worker({"work": work, "job": some_job(workers=2).model_dump_json(), "storage": "tune/one"})
    assert Record.model_validate_json(str(left.value)).status == "stopped"
