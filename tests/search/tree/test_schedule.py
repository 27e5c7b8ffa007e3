from __future__ import annotations

import random

import pytest

from benchmarks.schedule import ORDERS, SUGGEST, UTILISATION, durations, finish, make_driver, make_study, simulate
from dermsearch.search.tree.driver import FINISHED
from dermsearch.search.tree.node import DONE
from dermsearch.work.job import Job


@pytest.mark.parametrize("workers", [1, 4, 12])
def test_a_cluster_smaller_than_the_study_is_kept_busy(workers: int) -> None:
    found = {}
    for name, rank in ORDERS.items():
        driver = make_driver(make_study(5, 4, 1), rank)
        out = simulate(driver, workers, durations(driver, 3, preempted=True))
        assert all(n.status == DONE for n in driver.tree.nodes.values())
        assert out.utilisation(workers) <= out.reachable(workers) + 1e-9, "no schedule can be better than the bound"
        found[name] = out.utilisation(workers) / out.reachable(workers)
    assert found["critical path"] >= UTILISATION
    assert found["critical path"] >= max(found.values()) - 0.01


@pytest.mark.slow
def test_among_ten_thousand_stages_the_next_one_is_found_at_once() -> None:
    driver = make_driver(make_study(8, 4, 5))
    out = simulate(driver, 512, durations(driver, 0, preempted=False))
    times = sorted(out.suggests[1:-1])
    assert out.stages > 10_000 and times[int(0.99 * len(times))] < SUGGEST


def test_what_is_left_is_estimated_from_what_was_measured() -> None:
    """On four workers, half-way: the rest takes what the driver says, within a fifth."""
    driver = make_driver(make_study(4, 3, 1))
    seconds = durations(driver, 1, preempted=False)
    assert driver.durations.left(driver.tree, {}) is None
    now, said, under_way = 0.0, (0.0, 0.0), []  # type: ignore[var-annotated]
    while True:
        while len(under_way) < 4 and isinstance(job := driver.next_job(), Job):
            took = seconds(driver.tree.nodes[job.key])
            under_way.append((now + took, took, job.key))
        if not under_way:
            break
        under_way.sort()
        now, took, key = under_way.pop(0)
        finish(driver, key, took)
        if sum(n.status == DONE for n in driver.tree.stages()) == 20:
            behind = {k: int(20 * (now - (end - t)) / t) for end, t, k in under_way}
            left = driver.durations.left(driver.tree, behind)
            assert left is not None
            said = (now, left)
    assert driver.next_job() == FINISHED
    assert said[1] == pytest.approx(now - said[0], rel=0.2)


def test_equal_draws_make_equal_runs() -> None:
    found = []
    for _ in range(2):
        random.seed()  # whatever the global generator holds
        driver = make_driver(make_study(4, 3, 1))
        found.append(simulate(driver, 6, durations(driver, 5, preempted=True)).makespan)
    assert found[0] == found[1]
