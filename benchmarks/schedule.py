"""How busy the driver keeps a cluster, and how long it thinks about its next stage.

    python benchmarks/schedule.py [--quick]

The driver and its tree are the real ones; workers, store and clock are simulated as discrete events. Stages take what
tasks cost times a speed that the driver is not told, times noise; workers are preempted now and then, lose the epoch
under way and need a minute to return. No schedule can be shorter than the work over the workers, nor than the longest
chain of stages: utilisation is that bound over the time taken. At its start a tree has fewer stages than a large
cluster has workers, whoever schedules: the column "can be" is the utilisation of the critical-path bound that counts
this too, as Fernandez and Bussell's (1973) does, which no schedule can exceed either. Two simpler orders stand beside
the driver's.

A sampler that learns has `search.lag` proposals under way. What that keeps busy stands beside rounds of as many, in
which proposals are told and asked for only once all of a round are finished: the share of the workers' time that goes
into work.

The exit code says whether the limits held: 0.95 of what can be, never worse than the simpler orders by more than noise,
and 5 ms of CPU time per stage handed out; a lag must never be worse than rounds.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from dermsearch.pretext.base import find_task
from dermsearch.search.propose.proposer import Asked, Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.space import Space
from dermsearch.search.tree.driver import FINISHED, WAIT, Driver
from dermsearch.search.tree.node import Node, Rank, critical_path
from dermsearch.search.tree.roots import Start
from dermsearch.study.config import Study
from dermsearch.work.job import Cases, Job
from dermsearch.work.record import Record

TASKS = ("rotation", "relative_location", "simclr", "moco_v2", "byol", "odc", "swav", "colorme")
UTILISATION, SUGGEST, WORSE = 0.95, 5.0, 0.02  # the limits; ms; share by which another order may be better
JUDGING, RETURN, MEAN_LIFE = 20.0, 60.0, 4 * 3600.0  # seconds; of a worker between two preemptions
NOISE, SPEEDS = 0.15, (0.5, 2.0)  # sigma of log time; how far tasks are from what they are said to cost


class Everything:
    """A proposer that asks for the whole space at once."""

    def __init__(self, space: Space) -> None:
        self.proposals = [Asked(i, p) for i, p in enumerate(space.every())]

    def ask(self) -> list[Asked]:
        """All there is, once."""
        found, self.proposals = self.proposals, []
        return found

    def tell(self, asked: Asked, prefixes: list[float | None], pruned: object = None) -> None:
        """It has nothing left to decide."""

    def end(self) -> None:
        """It keeps no journal."""


@dataclass
class Memory:
    """A stage store that keeps manifests and scores in memory."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    address: str = "memory"

    def keys(self) -> set[str]:
        """The stages that are there."""
        return set(self.stages)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Of a finished stage."""
        return self.stages.get(key)

    def judgement(self, key: str, of: str = "") -> dict[str, Any] | None:
        """Of a judged one."""
        return self.judged.get(key)


@dataclass
class Outcome:
    """What a simulated run came to."""

    makespan: float
    work: float
    chain: float  # the longest one, each stage as long as it took
    spans: list[tuple[float, float]]  # of each stage: when it could begin with workers without end, and its seconds
    stages: int
    suggests: list[float]  # milliseconds

    def utilisation(self, workers: int) -> float:
        """The lower bound on the time over the time."""
        return max(self.work / workers, self.chain) / self.makespan

    def reachable(self, workers: int) -> float:
        """The utilisation of a schedule that loses nothing but what the tree's narrow start costs.

        By a time t no schedule has done more than workers without end would have, nor more than all of its own; what
        then remains takes the work that is left over the workers.
        """
        bound = max(self.work / workers, self.chain)
        tight = bound
        for begin, seconds in self.spans:
            t = begin + seconds
            done = sum(min(s, t - b) for b, s in self.spans if b < t)
            tight = max(tight, t + (self.work - min(done, workers * t)) / workers)
        return bound / tight


def make_study(tasks: int, longest: int, seeds: int, **search: Any) -> Study:
    """All curricula of so many tasks, each proposed in its turn or searched."""
    return Study.model_validate(
        {
            "name": "schedule",
            "data": {"modalities": ["derm"], "size": 64},
            "curriculum": {"tasks": list(TASKS[:tasks]), "length": [1, longest]},
            "train": {"epochs": 20},
            "downstream": {"linear": {}},
            "search": {"seeds": list(range(seeds)), **search},
        }
    )


def make_driver(study: Study, rank: Rank = critical_path) -> Driver:
    """The real driver over a store in memory."""
    space = space_of(study)
    proposer: Any = Everything(space) if study.search.sampler == "grid" else Proposer(space, study.search, None)
    store: Any = Memory()
    sets, starts = {"data": Cases(data=study.main, fingerprint="fingerprint")}, [Start("", study.encoder.names[0])]
    return Driver(study, space, proposer, store, sets, starts, "", "fp32", rank=rank)


def durations(driver: Driver, seed: int, preempted: bool) -> Callable[[Node], float]:
    """What a stage really takes; the same for every order in which stages are handed out."""
    speeds = {task: random.Random(f"{seed} {task}").uniform(*SPEEDS) for task in TASKS}

    def seconds(node: Node) -> float:
        if not node.task:
            return JUDGING
        dice = random.Random(f"{seed} {node.key}")
        epochs = node.settings["train"]["epochs"]
        epoch = 10.0 * node.cost / epochs * speeds[node.task] * dice.lognormvariate(0, NOISE)
        taken, left = 0.0, epoch * epochs + JUDGING
        while preempted and (life := dice.expovariate(1 / MEAN_LIFE)) < left:
            left -= life // epoch * epoch  # the epoch under way is lost
            taken += life + RETURN
        return taken + left

    return seconds


def simulate(driver: Driver, workers: int, seconds: Callable[[Node], float]) -> Outcome:
    """Run the driver's jobs on so many workers."""
    now, events, free, suggests = 0.0, [], workers, []
    took: dict[str, float] = {}
    while True:
        job: Any = WAIT
        while free:
            began = time.thread_time()  # the machine may be busy with other things
            job = driver.next_job()
            suggests.append(1000 * (time.thread_time() - began))
            if not isinstance(job, Job):
                break
            free -= 1
            took[job.key] = seconds(driver.tree.nodes[job.key])
            heapq.heappush(events, (now + took[job.key], job.key))
        if job == FINISHED:
            break
        now, key = heapq.heappop(events)
        free += 1
        finish(driver, key, took[key])
    chains: dict[str, float] = {}
    for key, node in driver.tree.nodes.items():  # parents come before their children; nobody waits for a root
        chains[key] = took[key] + (chains[node.parent.key] if node.parent and node.depth > 1 else 0.0)
    spans = [(chains[key] - seconds, seconds) for key, seconds in took.items()]
    return Outcome(now, sum(took.values()), max(chains.values()), spans, len(took), suggests)


def finish(driver: Driver, key: str, seconds: float) -> None:
    """What a worker leaves in the store, and its word to the driver."""
    store: Any = driver.store
    row = {"metric": "balanced_accuracy", "label": "diagnosis", "class": "", "split": "val"}
    row |= {"value": random.Random(key).random()}
    about = {"seconds": max(0.0, seconds - JUDGING), "epochs": 20, "device": "", "node": "", "workers": 1}
    store.stages[key] = about
    judged = driver.judges.key(driver.tree.nodes[key], driver.judges.evaluators[0])
    store.judged[judged] = {"rows": [row], "confusions": [], "seconds": JUDGING}
    driver.done(Record.done(key, about).model_copy(update={"judge_seconds": JUDGING}))


def first_come(node: Node) -> tuple[float, ...]:
    """In the order proposed."""
    return (node.order,)


def most_descendants(node: Node) -> tuple[float, ...]:
    """What most stages are behind, whatever they take."""
    counted = node.record.setdefault("behind", sum(1 for _ in node.below()))  # once: all are proposed by then
    return (-counted, node.order)


ORDERS: dict[str, Rank] = {
    "critical path": critical_path,
    "most descendants": most_descendants,
    "first come": first_come,
}
STUDIES = ((5, 3, 1), (5, 5, 3), (6, 4, 1), (8, 3, 2), (8, 4, 1))  # tasks, longest curriculum, seeds
WORKERS = (1, 8, 32, 128, 512)


def utilisations(quick: bool) -> Iterator[tuple[str, int, float, dict[str, float]]]:
    """Per study and cluster: the utilisation that can be, and that of each order (medians over draws)."""
    for tasks, longest, seeds in STUDIES[:2] if quick else STUDIES:
        study = make_study(tasks, longest, seeds)
        for workers in WORKERS:
            found: dict[str, list[float]] = {name: [] for name in ORDERS}
            reachable, stages = [], 0
            for draw in range(3):
                for name, rank in ORDERS.items():
                    driver = make_driver(study, rank)
                    out = simulate(driver, workers, durations(driver, draw, preempted=True))
                    found[name].append(out.utilisation(workers))
                reachable.append(out.reachable(workers))
                stages = out.stages
            said = f"{tasks} tasks, up to {longest}, {seeds} seed{'s' * (seeds > 1)}: {stages} stages"
            yield said, workers, median(reachable), {name: median(values) for name, values in found.items()}


def lags(quick: bool) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Per cluster and lag: the share of the workers' time that is work, with a lag and in rounds (medians)."""
    for workers in (4, 16) if quick else (4, 16, 32, 128):
        for lag in (workers, 2 * workers):
            found: dict[str, list[float]] = {"lag": [], "rounds": []}
            for draw in range(1 if workers > 32 else 3):
                for way, busy in found.items():
                    search = {"sampler": "curriculum_prior", "trials": min(16 * workers, 1000), "sampler_seed": draw}
                    driver = make_driver(make_study(8, 4, 1, lag=lag, **search))
                    driver.window.together = way == "rounds"
                    out = simulate(driver, workers, durations(driver, draw, preempted=True))
                    busy.append(out.work / workers / out.makespan)
            yield workers, lag, {way: median(busy) for way, busy in found.items()}


def thinking() -> tuple[int, list[float]]:
    """Milliseconds of each `next_job` in a study of 10,000 stages on 512 workers, laid out by the first."""
    driver = make_driver(make_study(8, 4, 5))
    out = simulate(driver, 512, durations(driver, 0, preempted=True))
    return out.stages, out.suggests


def main() -> int:
    """Print the tables; 0 if all limits held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two studies")
    given = parser.parse_args()
    for task in TASKS:
        find_task(task)
    wrong = []
    print(f"{'study':48}{'workers':>8}{'can be':>8}" + "".join(f"{name:>18}" for name in ORDERS))
    for said, workers, reachable, found in utilisations(given.quick):
        print(
            f"{said:48}{workers:>8}{reachable:>8.3f}" + "".join(f"{value:>18.3f}" for value in found.values()),
            flush=True,
        )
        ours, others = found["critical path"], max(v for name, v in found.items() if name != "critical path")
        if ours < UTILISATION * reachable:
            wrong.append(f"{said} on {workers} workers: {ours:.3f} where {reachable:.3f} can be")
        if ours < others - WORSE:
            wrong.append(f"{said} on {workers} workers: another order is better by {others - ours:.3f}")
    print(f"\ncurriculum_prior: work over the workers' time\n{'workers':>8}{'lag':>8}{'with it':>12}{'in rounds':>12}")
    for workers, lag, found in lags(given.quick):
        print(f"{workers:>8}{lag:>8}{found['lag']:>12.3f}{found['rounds']:>12.3f}", flush=True)
        if found["lag"] < found["rounds"]:
            wrong.append(f"lag {lag} on {workers} workers: {found['lag']:.3f} where rounds reach {found['rounds']:.3f}")
    stages, times = thinking()
    later = sorted(times[1:-1])
    print(f"\nnext_job among {stages:,} stages: median {median(later):.2f} ms, 99 % below ", end="")
    print(
        f"{later[int(0.99 * len(later))]:.2f} ms, worst {later[-1]:.1f} ms; the first, which lays out the tree, ",
        end="",
    )
    print(f"{times[0] / 1000:.2f} s, the last, which tells the proposer of it, {times[-1] / 1000:.2f} s")
    if later[int(0.99 * len(later))] > SUGGEST:
        wrong.append(f"next_job takes {later[int(0.99 * len(later))]:.1f} ms")
    for line in wrong:
        print(f"LIMIT: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
