"""So many proposals under way, told in their order: what is searched depends on the study alone, and nobody waits."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_search import Bench, make_study
from pydantic import ValidationError

from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.study.config import Limits, Study
from dermsearch.study.wording import problem
from dermsearch.work.job import Job
from dermsearch.work.record import Record

TASKS = {t: {"queue": 64} if t == "moco_v2" else {} for t in ("relative_location", "moco_v2", "rotation", "byol")}
DIMENSIONS = {"rotation": {"lr": {"log": [0.01, 1.0]}}, "byol": {}, "relative_location": {"lr": {"choice": [0.1, 0.3]}}}
RATES = {"tasks": DIMENSIONS, "length": [1, 2]}
FIT = {"downstream": {"finetune": {"epochs": 1}, "knn": {}}, "objective": {"protocol": "finetune"}}
LOST = ["moco_v2 > byol", "rotation"]
STUDIES: dict[str, dict[str, Any]] = {
    "the prior": {"search": {"sampler": "curriculum_prior", "trials": 18, "lag": 3}},
    "one at a time": {"search": {"sampler": "curriculum_prior", "trials": 14}},
    "tpe, two seeds": {"search": {"sampler": "tpe", "trials": 12, "lag": 4, "seeds": [0, 1]}},
    "settings": {"search": {"sampler": "tpe", "trials": 16, "lag": 5}, "curriculum": RATES},
    "fits decide": {"search": {"sampler": "curriculum_prior", "trials": 12, "lag": 4}, **FIT},
    "stages": {"search": {"sampler": "curriculum_prior", "budget": {"stages": 13}, "lag": 4}},
    "epochs": {"search": {"sampler": "tpe", "budget": {"epochs": 31}, "lag": 6}},
    "epochs of the list": {"search": {"sampler": "grid", "budget": {"epochs": 40}}},
    "epochs by chance": {"search": {"sampler": "random", "budget": {"epochs": 40}, "seeds": [3, 5]}},
    "curricula": {"search": {"sampler": "random", "budget": {"curricula": 9}}},
    "a median": {"search": {"sampler": "tpe", "trials": 12, "lag": 4, "pruner": "median"}},
    "leaders": {"search": {"sampler": "tpe", "trials": 9, "lag": 4, "replicates": "leaders", "seeds": [0, 1, 2]}},
}


def study_of(**changes: Any) -> Study:
    train = {"epochs": 3, "batch": 16, "precision": "fp32"}
    return make_study(**{"curriculum": {"tasks": TASKS, "length": [1, 3]}, "train": train, **changes})


def luck(*of: Any) -> float:
    return zlib.crc32(repr(of).encode()) / 2**32


def early(driver: Driver, work: Callable[[Job], Record]) -> Callable[[Job], Record]:
    """A worker some of whose stages end an epoch or two before their time."""
    commit = driver.store.commit

    def worker(job: Job) -> Record:
        epochs = {"epochs": 3 - int(3 * luck("ends", job.key))} if job.kind == "stage" else {}
        driver.store.commit = lambda key, parts, history, about: commit(key, parts, history, about | epochs)  # type: ignore
        record = work(job)
        return record if record.status == "failed" else record.model_copy(update=epochs)

    return worker


class Run:
    """One study in one folder, as often killed as wished."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.study, self.bench = study, Bench(folder, lambda job: luck(job.curriculum, job.settings, job.seed))
        self.bench.fail = set(LOST)
        (folder / "out").mkdir(parents=True)

    def go(self, workers: int, order: random.Random, until: float = float("inf")) -> Driver:
        """Workers that finish in any order; after so many jobs the run is killed, and what was under way is lost."""
        budget = Budget(self.study.search.budget, self.bench.folder / "out")
        driver = self.bench.driver(self.study, budget=budget)
        work, busy = early(driver, self.bench.work(driver)), list[Job]()
        while until > 0:
            while len(busy) < workers and isinstance(job := driver.next_job(), Job):
                busy.append(job)
            if not busy:
                assert driver.next_job() == FINISHED
                break
            driver.done(work(busy.pop(order.randrange(len(busy)))))
            until -= 1
        return driver

    def told(self, driver: Driver) -> tuple[Any, ...]:
        """All that must not depend on chance."""
        table = [{k: v for k, v in t.items() if k not in ("seconds", "keys")} for t in driver.window.trials]
        known = [(str(p), v) for p, v in driver.proposer.known.values.items()]
        spent = {name: amount for name, amount in driver.budget.spent.items() if name != "gpu_hours"}
        nodes = sorted((n.key, n.status, n.value) for n in driver.tree.trained() if n.granted or n.record)
        if not self.study.search.budget:
            spent = {}  # nobody counts, so what the store has is free to a run that goes on
        return table, known, spent, driver.budget.ended, nodes


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_same_is_searched_by_any_workers_and_after_any_kill(name: str, tmp_path: Path) -> None:
    study = study_of(**STUDIES[name])
    alone = Run(tmp_path / "alone", study)
    want = alone.told(alone.go(1, random.Random(0)))
    assert any(t["status"] == "done" for t in want[0]), "something was searched"
    for workers, seed in ((4, 1), (4, 2), (16, 3)):
        other = Run(tmp_path / f"{workers}-{seed}", study)
        assert other.told(other.go(workers, random.Random(seed))) == want
    for workers, seed in ((1, 4), (4, 5), (4, 6)):
        order = random.Random(seed)
        killed = Run(tmp_path / f"killed-{seed}", study)
        for _ in range(3):
            killed.go(workers, order, until=order.randrange(1, 9))
        assert killed.told(killed.go(workers, order)) == want


@pytest.mark.parametrize("lag", [1, 3])
def test_a_proposal_knows_all_that_were_made_so_many_before_it_and_no_other(lag: int, bench: Bench) -> None:
    driver = bench.driver(study_of(search={"sampler": "tpe", "trials": 12, "lag": lag}))
    events: list[str] = []
    begin, tell = bench.proposer.journal.begin, bench.proposer.tell
    bench.proposer.journal.begin = lambda p: (events.append("ask"), begin(p))[1]  # type: ignore[method-assign]
    bench.proposer.tell = lambda *a: (events.append(f"tell {a[0].number}"), tell(*a))[1]  # type: ignore[method-assign]
    work, busy, dice = bench.work(driver), list[Job](), random.Random(0)
    while True:
        while isinstance(job := driver.next_job(), Job):
            busy.append(job)
        if not busy:
            break
        driver.done(work(busy.pop(dice.randrange(len(busy)))))
    want = ["ask"] * lag
    for k in range(12):
        want += [f"tell {k}"] + ["ask"] * (k + lag < 12)
    assert events == want


def test_nobody_waits_at_the_end_of_a_round(bench: Bench) -> None:
    """Of four under way the last is slow: the other workers get on with what is proposed meanwhile."""
    rates = {"tasks": {"rotation": {"lr": {"log": [0.01, 1.0]}}}, "length": [1, 1]}
    driver = bench.driver(make_study(curriculum=rates, search={"sampler": "tpe", "trials": 12, "lag": 4}))
    work = bench.work(driver)
    busy = [job for job in (driver.next_job() for _ in range(5)) if isinstance(job, Job)]
    slow = max(busy, key=lambda job: driver.tree.nodes[job.key].order)
    for job in busy:
        if job is not slow:
            driver.done(work(job))
    assert [isinstance(driver.next_job(), Job) for _ in range(4)] == [True, True, True, False]
    assert driver.tree.nodes[slow.key] in driver.tree.running()


def test_what_a_failure_gives_back_is_there_when_its_turn_has_come(bench: Bench) -> None:
    """Not before: whoever is faster would decide what there is room for."""
    listed = {"tasks": TASKS, "length": [2, 2], "order": "listed"}
    bench.fail = {"moco_v2"}
    driver = bench.driver(study_of(curriculum=listed), budget=Budget(Limits(stages=6)))
    work = bench.work(driver)
    first, second = [job for job in (driver.next_job() for _ in range(3)) if isinstance(job, Job) and job.task]
    assert (first.curriculum, second.curriculum) == ("relative_location", "moco_v2")
    driver.done(work(second))
    assert driver.next_job() == WAIT and driver.budget.spent["stages"] == 6
    driver.done(work(first))
    while isinstance(job := driver.next_job(), Job):
        driver.done(work(job))
    assert "rotation" in {job.curriculum for job in bench.jobs}, "there is room for what nothing was left of"
    assert driver.budget.spent["stages"] == 6


@pytest.mark.parametrize("raw", [{"round": 4}, {"round": 1, "sampler": "tpe", "trials": 3}])
def test_a_study_that_names_rounds_is_told_of_the_lag(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"round: .* give search\.lag, ") as refused:
        make_study(search=raw)
    assert problem(refused.value.errors()[0])[0] == "search.round"
