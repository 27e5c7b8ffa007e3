from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest_search import Bench, make_study
from e2e.tiny import TWO_TASKS, run, values

from dermsearch.engines.inline import run_inline
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.search.tree.node import DONE, Node
from dermsearch.search.tree.roots import Start
from dermsearch.storage import leases as module
from dermsearch.storage.files import StoreLost, sealed
from dermsearch.storage.leases import BEAT, POLL, STALE, Claims, born, claim_of, gone, home
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Limits
from dermsearch.work.job import Cases, Job


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(str(tmp_path / "store"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def far_away(claims: Claims, beat: int = 1) -> None:
    """Make its beat that of a process on another machine."""
    about = {"beat": beat, "home": "another machine", "pid": os.getpid(), "born": "then"}
    claims.store.write(f"claims/runs/{claims.run}.json", json.dumps(about).encode())


def test_a_stage_has_one_master_until_it_is_dropped(store: StageStore, clock: Clock) -> None:
    with Claims(store) as one, Claims(store, clock) as two:
        assert one.take("a") and one.take("a") and not two.take("a")
        assert two.take("b")
        clock.now += 2 * POLL
        assert two.freed() == []
        one.drop("a")
        assert two.freed() == [], "looked just now"
        clock.now += 2 * POLL
        assert two.freed() == ["a"] and two.take("a") and not one.take("a")


def test_at_the_end_of_a_run_nothing_of_its_claims_is_left(store: StageStore, clock: Clock) -> None:
    with Claims(store, clock) as two:
        with Claims(store) as one:
            assert one.take("a") and not two.take("a")
        clock.now += 2 * POLL
        assert two.freed() == ["a"]
    assert store.local is not None
    assert [p for p in (store.local / "claims").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("local", [True, False])
def test_a_run_whose_beat_stands_still_is_dead_and_one_that_beats_is_not(
    store: StageStore, clock: Clock, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not local:  # as on an object store, where nothing can be linked
        monkeypatch.setattr(store, "local", None)
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a")
    for beat in range(20):
        far_away(one, beat)
        assert not two.take("a")
        clock.now += STALE / 2
    looks = 0
    while not two.take("a"):
        clock.now += 1.0
        looks += 1
    assert STALE - BEAT <= looks <= STALE + BEAT
    assert not one.take("a"), "back from the dead, it lets the other finish"


def test_what_heirs_hand_back_and_forth_ends(store: StageStore, clock: Clock) -> None:
    one, two = Claims(store, clock), Claims(store, clock)
    for heir, dead in [(one, two), (two, one)] * 3:
        store.forget(f"claims/runs/{dead.run}.json")
        assert heir.take("a")
        heir.store.write(f"claims/runs/{heir.run}.json", b"{}")
    two.drop("a")
    assert store.get("claims/a.json") is None and one.take("a")


def test_a_watcher_that_slept_gives_the_other_time(store: StageStore, clock: Clock) -> None:
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a")
    far_away(one)
    assert not two.take("a")
    clock.now += 100 * STALE  # this process was stopped, and perhaps the other with it
    assert not two.take("a")


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(store: StageStore, clock: Clock) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    beat = json.dumps({"beat": 1, "home": home(), "pid": child.pid, "born": born(child.pid)}).encode()
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a")
    store.write(f"claims/runs/{one.run}.json", beat)
    assert not gone(beat) and not two.take("a")
    child.kill()
    child.wait()
    assert gone(beat) and two.take("a")
    another = json.dumps({"beat": 1, "home": home(), "pid": os.getpid(), "born": "1"}).encode()
    assert gone(another), "its number belongs to another process now"


NO_CLAIMS: dict[str, Any] = {
    "empty": lambda name, run: b"",
    "cut": lambda name, run: claim_of(run, name)[:40],
    "a list": lambda name, run: b"[1]",
    "deep": lambda name, run: b"[" * 100_000,
    "without a checksum": lambda name, run: json.dumps({"run": run}).encode(),
    "without a name": lambda name, run: sealed({"run": run}),  # as it was before claims told theirs
    "of another stage": lambda name, run: claim_of(run, "claims/other.json"),
    "by a path": lambda name, run: claim_of("../../elsewhere", name),
    "by a number": lambda name, run: claim_of(7, name),  # type: ignore[arg-type]
    "no text": lambda name, run: b"\xff\x00",
}


@pytest.mark.parametrize("what", NO_CLAIMS)
@pytest.mark.parametrize("heir", [False, True])
def test_what_is_no_claim_keeps_nobody_from_work(store: StageStore, clock: Clock, what: str, heir: bool) -> None:
    other = Claims(store)
    assert other.take("a")
    alive = other.run
    if heir:  # of a run that is dead
        store.forget(f"claims/runs/{alive}.json")
        name, alive = f"claims/a.1-{alive}.json", "b" * 32
        store.write(f"claims/runs/{alive}.json", b'{"beat": 1}')
    else:
        name = "claims/a.json"
    store.write("elsewhere.json", b'{"beat": 1}')
    store.write(name, NO_CLAIMS[what](name, alive))
    assert Claims(store, clock).take("a") and not Claims(store, clock).take("a"), "and the next sees a claim"


@pytest.mark.parametrize("wrong", ["folder", "pipe", "loop"])
def test_what_is_no_file_keeps_nobody_from_work(store: StageStore, clock: Clock, wrong: str) -> None:
    assert store.local is not None
    path = store.local / "claims" / "a.json"
    path.parent.mkdir()
    if wrong == "loop":
        path.symlink_to(path)
    else:
        path.mkdir() if wrong == "folder" else os.mkfifo(path)
    assert Claims(store, clock).take("a")


def test_an_heir_that_cannot_write_its_claim_works(
    store: StageStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a")
    store.forget(f"claims/runs/{one.run}.json")
    monkeypatch.setattr(two, "_write", lambda key, name: None)
    assert two.take("a")


def test_a_claim_is_on_the_disk_before_it_has_its_name(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    link, sync = os.link, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("synced"), sync(file)))
    monkeypatch.setattr(os, "link", lambda *names: (done.append("linked"), link(*names)))
    assert Claims(store).take("a") and done == ["synced", "linked"]


@pytest.mark.parametrize("now", [0.0, -1.0, 1e-3])
def test_a_clock_of_1970_makes_nobody_wait(
    store: StageStore, clock: Clock, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "time", lambda: now)
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a")
    far_away(one)
    looks = 0
    while not two.take("a"):
        clock.now += POLL
        looks += 1
    assert looks <= STALE + BEAT


def test_a_run_says_whom_it_waits_for(store: StageStore, clock: Clock) -> None:
    one, two = Claims(store), Claims(store, clock)
    assert one.take("a") and one.take("b") and two.waiting() == {}
    assert not two.take("a") and not two.take("b")
    for now, since in ((180, ""), (1300, " for 20 min")):
        clock.now = now
        (said,) = two.waiting().values()
        assert said.startswith(f"Waiting{since} for another run, process {os.getpid()} on ") and "end it" in said


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_of_many_at_once_one_gets_it(store: StageStore, dead: int) -> None:
    """Free stages, and those of a dead run, and of its heir, dead too."""
    runs, keys = [Claims(store) for _ in range(8)], [f"k{i}" for i in range(25)]
    for key in keys if dead else ():
        first, heir = f"claims/{key}.json", f"claims/{key}.1-{'d' * 32}.json"
        store.write(first, claim_of("d" * 32, first))
        if dead > 1:
            store.write(heir, claim_of("e" * 32, heir))
    got: list[tuple[int, str]] = []
    barrier = threading.Barrier(len(runs))

    def race(number: int) -> None:
        for key in keys:
            barrier.wait()
            if runs[number].take(key):
                got.append((number, key))

    threads = [threading.Thread(target=race, args=(i,)) for i in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in runs:
        each.__exit__()
    assert sorted(key for _, key in got) == sorted(keys)
    assert store.local is not None
    assert [p for p in (store.local / "claims").rglob("*") if p.is_file()] == []


def drivers(bench: Bench, clock: Clock, **changes: Any) -> tuple[Driver, Driver]:
    """Two runs of one study on one store."""
    study = make_study(**changes)
    made = []
    for name in ("one", "two"):
        space = space_of(study)
        own = StageStore(str(bench.folder / "store"))
        proposer = Proposer(space, study.search, bench.folder / name / "journal")
        sets = {"data": Cases(data=study.main, fingerprint="f")}
        begin = [Start("", study.encoder.roots[0].encoder)]
        made.append(Driver(study, space, proposer, own, sets, begin, "", "fp32", claims=Claims(own, clock)))
    return made[0], made[1]


def side_by_side(bench: Bench, clock: Clock, one: Driver, two: Driver, at_once: int) -> None:
    """Let both work to their ends, in turn and in each other's way."""
    work = {d: bench.work(d) for d in (one, two)}
    ended = set()
    while len(ended) < 2:
        for driver in (one, two):
            jobs = []
            while len(jobs) < at_once and isinstance(job := driver.next_job(), Job):
                jobs.append(job)
            if job == FINISHED:
                ended.add(driver)
            clock.now += POLL
            for each in (one, two):
                assert each.claims is not None
                each.claims._beat()  # the clock is faster than its thread
            for job in jobs:
                other = two if driver is one else one
                held = other.next_job()  # the other looks while this one is at it
                if isinstance(held, Job):
                    other.done(work[other](held))
                driver.done(work[driver](job))


def test_two_drivers_train_no_stage_twice_and_both_finish(bench: Bench, clock: Clock) -> None:
    one, two = drivers(bench, clock)
    side_by_side(bench, clock, one, two, 3)
    names = [job.curriculum for job in bench.jobs]
    assert len(names) == len(set(names)) == 16
    trained = [sum(not n.reused for n in d.tree.stages()) for d in (one, two)]
    assert sum(trained) == 15 and min(trained) > 0
    assert len(one.window.trials) == 15
    assert [t["value"] for t in one.window.trials] == [t["value"] for t in two.window.trials]


def test_two_drivers_train_no_segment_twice_and_decide_the_same(bench: Bench, clock: Clock) -> None:
    tasks = {"relative_location": {"lr": {"select": [0.01, 0.1], "epochs": 1}}, "rotation": {}, "byol": {}}
    cut = {"pruner": "halving", "rungs": [2], "lag": 3}
    changes = {"curriculum": {"tasks": tasks, "length": [1, 2]}, "train__epochs": 4, "search": cut}
    one, two = drivers(bench, clock, **changes)
    side_by_side(bench, clock, one, two, 1)
    keys = [job.key for job in bench.jobs]
    assert len(keys) == len(set(keys)) and sum(bool(job.until) for job in bench.jobs) > 5
    here = [sum(not n.reused for n in d.tree.trained() if n.until and n.status == "done") for d in (one, two)]
    assert min(here) > 0
    told = [
        [sorted((n.key, n.verdict) for n in d.tree.trained() if n.until)]
        + [[t["status"], t["value"]] for t in d.window.trials]
        for d in (one, two)
    ]
    assert told[0] == told[1] and any(t["status"] == "pruned" for t in one.window.trials)


def test_what_a_dead_run_began_is_taken_over(bench: Bench, clock: Clock) -> None:
    dead, alive = drivers(bench, clock)
    begun = [dead.next_job() for _ in range(4)]  # the root and three tasks: all that can begin
    assert alive.next_job() == WAIT
    assert dead.claims is not None and alive.claims is not None
    for _ in range(int(STALE + BEAT)):
        far_away(dead.claims)
        clock.now += 1.0
        job = alive.next_job()
        if isinstance(job, Job):
            break
    assert isinstance(job, Job) and job.key in [b.key for b in begun if isinstance(b, Job)]
    alive.done(bench.work(alive)(job))
    run_inline(alive, bench.work(alive))
    assert len(bench.jobs) == 16 and alive.over


def test_when_the_time_is_up_nobody_waits_for_another_run(bench: Bench, clock: Clock) -> None:
    one, two = drivers(bench, clock)
    two.budget = two.admission.budget = Budget(Limits(hours=1), clock=clock)
    jobs = [one.next_job() for _ in range(4)]
    assert isinstance(jobs[0], Job) and two.next_job() == WAIT
    one.done(bench.work(one)(jobs[0]))  # the root
    clock.now = 3600.0
    assert two.next_job() == FINISHED and len(two.left()) == 15 and two.window.trials == []


def test_what_another_run_holds_is_not_paid_for_here(bench: Bench, clock: Clock) -> None:
    """A stage takes a second on a GPU, and there is room for two."""
    one, two = drivers(bench, clock, compute__gpus=1)
    two.budget = two.admission.budget = Budget(Limits(gpu_hours=1.5 / 3600), clock=clock)
    held = [one.next_job() for _ in range(3)]  # the root and two of the three tasks
    found = two.next_job()
    assert isinstance(found, Job) and found.curriculum == "odc"
    two.done(bench.work(two)(found))
    clock.now += 2 * POLL
    assert isinstance(two.next_job(), Job) and all(isinstance(job, Job) for job in held)


def test_what_goes_wrong_with_a_record_ends_the_run_as_it_is(bench: Bench, clock: Clock) -> None:
    from dermsearch.engines.ray_tune import StageSearcher

    driver, _ = drivers(bench, clock)

    def full(node: Node) -> None:
        if node.status == DONE:
            raise OSError(errno.ENOSPC, "full", "tables")

    driver.on_change = full
    searcher = StageSearcher(driver, "")
    job = Job.model_validate_json(searcher.suggest("t0")["job"])
    searcher.on_trial_complete("t0", {"record": bench.work(driver)(job).model_dump_json()})
    with pytest.raises(OSError, match="full"):  # which the command puts into a sentence
        searcher.suggest("t1")


def test_tune_is_asked_to_come_again_while_another_run_is_at_it(bench: Bench, clock: Clock) -> None:
    from dermsearch.engines.ray_tune import StageSearcher

    one, two = drivers(bench, clock)
    jobs = [one.next_job() for _ in range(4)]
    searcher = StageSearcher(two, "")
    assert searcher.suggest("t0") is None
    assert isinstance(jobs[1], Job)
    one.done(bench.work(one)(jobs[1]))
    clock.now += 2 * POLL
    found = searcher.suggest("t1")
    assert json.loads(found["job"])["parent"] == jobs[1].key


def test_a_store_out_of_reach_for_claims_stops_nobody(
    bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Claims, *given: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(module.Claims, "_write", broken)
    one, _ = drivers(bench, clock)
    run_inline(one, bench.work(one))
    assert len(bench.jobs) == 16


@pytest.mark.slow
def test_two_processes_on_one_store_share_the_work(tmp_path: Path) -> None:
    """The whole thing: two runs of one study, started together, each with a results folder of its own."""
    found: dict[str, dict] = {}
    study = [*TWO_TASKS, "compute.engine=inline", "logging=[]"]

    def go(out: str) -> None:
        found[out] = run(tmp_path, *study, out=out)[0]

    threads = [threading.Thread(target=go, args=(out,)) for out in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [found[out]["stages"] for out in ("one", "two")]
    assert sum(c["trained"] for c in counts) == 4 and sum(c["reused"] for c in counts) == 4
    assert not any(c["failed"] or c["pruned"] for c in counts)
    assert values(tmp_path, "one") == values(tmp_path, "two")


def test_who_waits_for_another_run_ends_when_the_store_cannot_be_looked_at(
    store: StageStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for ever: nobody would be found to have left."""
    with Claims(store) as one, Claims(store, clock) as two:
        assert one.take("a") and not two.take("a")
        clock.now += 2 * POLL
        assert two.freed() == []

        def unreadable(name: str) -> Any:
            raise StoreLost("cannot be listed")

        with monkeypatch.context() as patch:
            patch.setattr(store, "listed", unreadable)
            clock.now += 2 * POLL
            assert two.freed() == [], "it may come back"
            clock.now += STALE
            with pytest.raises(StoreLost, match="cannot be listed"):
                two.freed()
        clock.now += 2 * POLL
        assert two.freed() == [], "it is back, and the other one is alive"
