"""The driver of a study: hands out the next missing stage, takes in what became of it, asks the brain for more.

It knows nothing of Ray or threads; an engine calls `next_job` until it says FINISHED and `done` for every job.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dermsearch.curriculum import ARROW, RANDOM_WEIGHTS
from dermsearch.evaluate import PROTOCOLS
from dermsearch.search.propose.proposer import Asked, Brain
from dermsearch.search.space.space import Proposal, Space
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.durations import Durations, own, total
from dermsearch.search.tree.replicates import Paths, contenders, highest, mean
from dermsearch.search.tree.rungs import Cut, Level, Levels
from dermsearch.search.tree.tree import DONE, FAILED, HELD, RUNNING, WAITING, Node, Rank, Tree, critical_path
from dermsearch.storage.keys import root_key, score_key
from dermsearch.storage.leases import Claims
from dermsearch.storage.place import READERS, StoreLost
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Data, Study

WAIT, FINISHED = "wait", "finished"
KEPT = ("seconds", "epochs", "device", "node", "workers")  # of a manifest, in the tables
LAST = "last"  # and of a segment's, what its last epoch came to
Found = tuple[dict[str, Any], list[dict[str, Any]]]  # a stage's manifest, and all rows of its scores


class Driver:
    """Brain, tree and stage store of one run."""

    def __init__(
        self,
        study: Study,
        space: Space,
        brain: Brain | None,
        store: StageStore,
        fingerprint: str,
        cache: str,
        precision: str,
        on_change: Callable[[Node], None] = lambda node: None,
        weights: str = "",
        budget: Budget | None = None,
        claims: Claims | None = None,
        rank: Rank = critical_path,
    ) -> None:
        self.study, self.space, self.brain, self.store = study, space, brain, store
        self.fingerprint, self.cache, self.precision = fingerprint, cache, precision
        self.on_change = on_change
        self.weights = weights  # content hash of the file that curricula start with; empty: random
        self.protocols = {
            n: PROTOCOLS.find(n).Config(**(c or {})).model_dump(mode="json") for n, c in study.downstream.items()
        }
        self.budget, self.claims, self.durations = budget or Budget(), claims, Durations()
        self.tree = Tree(rank, self.durations.expected)
        self.scores: dict[str, list[dict[str, Any]]] = {}  # by node key
        self.round: list[tuple[Asked, Paths]] = []  # per proposal, a path of nodes per seed
        self.pending: deque[tuple[Asked, list[Node]]] = deque()  # proposals that the budget may not have room for
        self.counted: set[int] = set()  # numbers of the proposals that the budget had room for
        self.there: set[str] = set()  # keys of the stages that the store had when the round began
        self.found: dict[str, Found] = {}  # by node key, what it said of those that were whole
        self.trials: list[dict[str, Any]] = []
        self.branches = Branches(space, self.tree, precision, study.search.seeds[0])
        self.levels: Iterator[Level] = iter(())  # of the round: what may be let in when all that was is finished
        self.cut: dict[int, Cut] = {}  # numbers of proposals that a pruner ended
        self.seeds: dict[str, list[Node]] = {}  # by the first one's key: a stage's nodes, of the seeds that it has
        self.best: float | None = None  # the highest mean over all seeds
        self.over = False
        self.stopped = ""  # why the run cannot go on, though nothing failed
        for seed in study.search.seeds:
            self.tree.root(root_key(study.data, fingerprint, study.encoder, seed, weights), seed)
        if weights:  # what they are worth: random ones are judged beside them, and never trained
            for seed in study.search.seeds:
                self.tree.root(root_key(study.data, fingerprint, study.encoder, seed), seed, RANDOM_WEIGHTS)

    def next_job(self) -> dict[str, Any] | str:
        """A job, WAIT while others must finish first, or FINISHED."""
        try:
            node = self._claimed()
        except StoreLost as error:
            self.stopped, node = str(error), FINISHED
        if isinstance(node, str):
            return node
        self.tree.begin(node)
        if node.booked:
            self.budget.pay(node.key)
        self.on_change(node)
        return self.job(node)

    def idle(self) -> bool:
        """Is everything that is asked for in the store already?"""
        return self._next_node() == FINISHED

    def _claimed(self) -> Node | str:
        """The next node that no other run works on."""
        while not self.stopped:
            node = self._next_node()
            if isinstance(node, str) or self.claims is None or self.claims.take(node.key):
                return node
            self.tree.begin(node, HELD)
        return FINISHED

    def _next_node(self) -> Node | str:
        """The next node that somebody must work on, past all that the store has."""
        if not self.round and not self.over:
            self._next_round()
        for key in self.claims.freed() if self.claims else ():
            self.tree.release(self.tree.nodes[key])  # finished by another run, or never to be
        while True:
            while (node := self.tree.ready()) is not None:
                if self._take_from_store(node):
                    continue
                if node.task and self._time_is_up():
                    self.tree.leave(node)  # what the store has of others is free, so go on looking
                    continue
                return node
            under_way = self.tree.running()
            if under_way and all(n.status == HELD and n.task for n in under_way) and self._time_is_up():
                for held in under_way:  # another run may be at it for long
                    self.tree.release(held)
                    self.tree.leave(held)
            elif under_way:
                return WAIT
            elif self.over or not self._go_on():
                self._end()
                return FINISHED

    def _time_is_up(self) -> bool:
        ahead = total(n for n in self.tree.running() if n.status == RUNNING)  # what others hold, they pay for
        return self.budget.time_is_up(self._gpu_hours(ahead))

    def _end(self) -> None:
        """Tell what is complete, and give back what was booked for stages that nobody began."""
        assert self.brain is not None
        self.over = True
        self._tell()
        self.brain.end()
        for node in self.tree.trained():
            if node.status == WAITING:
                self._unbook(node)

    def _go_on(self) -> bool:
        """All that was let in is finished: let in more, of this round or another; False at the end of the run."""
        if self.budget.out_of_time:
            return False
        if self.pending:
            return self._admit()
        return self._next_level() or self._more_seeds() or self._next_round()

    def _next_level(self) -> bool:
        """Let in what follows of the round; False at its end, or if the budget has no room for any more."""
        for level in self.levels:
            self._propose(level)
            if self.pending or any(n.status == WAITING for _, nodes in level for n in nodes):
                return True
        return False

    def done(self, key: str, record: dict[str, Any]) -> None:
        """What a worker says of its job."""
        node = self.tree.nodes[key]
        if node.status != RUNNING:
            return  # a second report of the same stage
        if record["status"] == "stopped":  # the store is full or out of reach: no stage failed, but none can go on
            self.stopped = self.stopped or record["error"]
            return
        node.record |= record
        if record["status"] == "failed":
            for lost in self.tree.fail(node, record["error"]):
                self._unbook(lost)
        else:
            try:
                self._finish(node, record["reused"], self._scores(node) or [])
            except StoreLost as error:
                self.stopped = str(error)
                return
        if self.claims:
            self.claims.drop(key)
        self.on_change(node)

    def left(self) -> list[Node]:
        """The stages that were proposed and are not finished: at the end those that the budget had no room for."""
        return [n for n in self.tree.stages() if n.status == WAITING]

    def job(self, node: Node) -> dict[str, Any]:
        """All that a worker needs to know, as JSON."""
        compute = self.study.compute
        return {
            "key": node.key,
            "parent": node.origin.key if node.parent else "",
            "until": node.until,  # of a segment: the epoch after which it ends
            "stage": node.stage,
            "segments": [n.key for n in reversed(node.chain[:-1])],  # of the same stage: it may go on from their states
            "depth": node.depth,
            "task": node.task,
            "curriculum": node.curriculum,
            "study": self.study.name,
            "settings": node.settings,
            "seed": node.seed,
            "data": placed(self.study.data),
            "encoder": self.study.encoder.model_dump(mode="json"),
            "weights": "" if node.title == RANDOM_WEIGHTS else self.weights,
            "precision": self.precision,
            "protocols": self._protocols(node),
            "store": self.store.address,
            "cache": self.cache,
            "fingerprint": self.fingerprint,  # of the cases
            "threads": compute.threads,
            "gpus": compute.gpus,
            "workers": compute.workers if node.task else 1,
            "retries": compute.retries,
            "compile": compute.compile,
            "knn_every": self.study.train.knn_every,
            "label": self.study.objective.label,
            "node": socket.gethostname(),
        }

    def _look_up(self, node: Node) -> Found | None:
        """A stage that is in the store and judged by every protocol of the study."""
        rows = self._scores(node)
        look = self.store.segment if node.until else self.store.manifest
        manifest = None if rows is None else look(node.key)
        return None if rows is None or manifest is None else (manifest, rows)

    def _take_from_store(self, node: Node) -> bool:
        found = self.found.pop(node.key, None) or self._look_up(node)
        if found is None:
            return False
        node.record |= {k: found[0].get(k) for k in (*KEPT, LAST) if k in found[0]}
        if node.key not in self.budget.paid:
            self._unbook(node)  # another run has trained it meanwhile
        self._finish(node, True, found[1])
        self.on_change(node)
        return True

    def _finish(self, node: Node, reused: bool, rows: list[dict[str, Any]]) -> None:
        """It is trained and judged, by whomever."""
        o = self.study.objective
        wanted = (o.protocol, o.metric, o.label, "", "val")
        self.scores[node.key] = rows
        mine = (r for r in rows if (r["protocol"], r["metric"], r["label"], r["class"], r["split"]) == wanted)
        for row in mine:
            node.value, node.high = row["value"], row.get("ci_high") or float("inf")
        self.tree.done(node, reused)
        if not node.task:
            return
        if self.durations.learn(node):
            self.tree.expect_anew()
        if node.booked:
            seconds = own(node, "seconds") + (node.record.get("judge_seconds") or 0.0)
            early = own(node, "epochs") - node.epochs if node.record.get("epochs") else 0  # it may end before its last
            self.budget.correct(gpu_hours=self._gpu_hours(seconds), epochs=early)

    def _gpu_hours(self, seconds: float) -> float:
        """Of so many seconds of stages; nothing while it is not known how long those take."""
        compute = self.study.compute
        return seconds * compute.gpus * compute.workers / 3600 if self.durations.known else 0.0

    def _score_keys(self, node: Node) -> list[str]:
        return [
            score_key(
                node.key, name, PROTOCOLS.find(name).version, config, self.study.data.labelled, "val", self.precision
            )
            for name, config in self._protocols(node).items()
        ]

    def _protocols(self, node: Node) -> dict[str, dict[str, Any]]:
        """Those that judge it: a segment only by what decides on it."""
        if not node.until:
            return self.protocols
        wanted = self.study.objective.protocol
        return {wanted: self.protocols[wanted]} if node.judged else {}

    def _scores(self, node: Node) -> list[dict[str, Any]] | None:
        """The rows of all protocols; None where one has not judged it."""
        found: list[dict[str, Any]] = []
        for key in self._score_keys(node):
            rows = self.store.scores(key)
            if rows is None:
                return None
            found += rows
        return found

    def _next_round(self) -> bool:
        """Tell the finished round in order, ask for another and let in what the budget has room for."""
        assert self.brain is not None
        self._tell()
        asked_now = self.brain.ask()
        roots = self.tree.starts()[: 1 if self.study.search.replicates == "leaders" else None]
        self.round = [(a, [self.branches.path(a.proposal, root) for root in roots]) for a in asked_now]
        self.levels = self._levels(roots)
        self._next_level()
        return bool(self.round)

    def _levels(self, roots: list[Node]) -> Iterator[Level]:
        """The round in parts, each of which must be finished before the next is known: mostly just one."""
        if self.space.selections or self.study.search.pruner != "none":
            assert self.brain is not None
            return Levels(self.study, self.brain, self.branches, self.store, self.round, roots, self.cut).climb()
        return iter([by_depth(self.round)])

    def _more_seeds(self) -> bool:
        """Let what may still be the best in with all of its seeds; False where nothing else may be.

        A shorter curriculum that came out on a proposal's way may be the best as well.
        """
        roots = self.tree.starts()
        if self.study.search.replicates == "all" or len(roots) == 1:
            return False
        standing: dict[str, tuple[Asked, Paths, Proposal]] = {}
        for asked, paths in self.round:
            for depth, node in enumerate(paths[0] if asked.number not in self.cut else (), start=1):
                if depth >= self.space.length[0]:
                    standing.setdefault(node.key, (asked, paths, asked.proposal.prefix(depth)))
                    self.seeds.setdefault(node.key, [node])
        stages = [self.seeds[key] for key in standing]
        self.best = highest(stages, self.best)
        more: list[tuple[Asked, Paths]] = []
        for first in contenders(stages, self.best):
            asked, paths, stage = standing[first.key]
            found = [self.branches.path(stage, root) for root in roots]
            for nodes in zip(*found, strict=True):
                self.seeds[nodes[0].key] = list(nodes)
            if stage == asked.proposal:
                paths += found[1:]
            more.append((asked, found))
        self._propose(by_depth(more))
        return bool(more)

    def _propose(self, level: Level) -> None:
        """Let it in as far as the budget has room."""
        self.pending = deque(level)
        self.look_up({n.key: n for _, nodes in self.pending for n in nodes if not n.granted}.values())
        self._admit()

    def _tell(self) -> None:
        """Close the round: what is complete of it goes to the brain and into the table of trials, in order."""
        assert self.brain is not None
        for asked, paths in self.round:
            cut = self.cut.get(asked.number)
            if cut is None and not (asked.number in self.counted and whole(paths, asked)):
                continue  # the budget ended before it
            replicates = [self.seeds.get(nodes[0].key, list(nodes)) for nodes in zip(*paths, strict=True)]
            prefixes = [mean(nodes) for nodes in replicates]
            prefixes += [None] * (len(asked.proposal.curriculum) - len(prefixes))
            self.brain.tell(asked, prefixes, cut.behind if cut else None)
            self.trials.append(self._trial(asked, paths, prefixes[-1]))
        self.round = []

    def look_up(self, nodes: Collection[Node]) -> None:
        """Find out what the store has of these, many at a time: files are read whole, and may be far away."""
        self.there = self.store.keys()
        if any(n.until for n in nodes):
            self.there |= self.store.keys("segments")
        some = [n for n in nodes if n.key in self.there]
        with ThreadPoolExecutor(READERS) as pool:
            for node, found in zip(some, pool.map(self._look_up, some), strict=True):
                if found is not None:
                    self.found[node.key] = found

    def _admit(self) -> bool:
        """Let in what the budget has room for, in the order proposed; False if that is nothing."""
        let_in = 0
        while self.pending:
            asked, nodes = self.pending[0]
            if asked.number not in self.counted and not self.budget.book(curricula=1):
                break
            self.counted.add(asked.number)
            for node in nodes:
                if node.granted or node.status != WAITING:
                    continue
                if not self._grant(node):
                    return let_in > 0
                let_in += 1
            self.pending.popleft()
            let_in += 1
        return let_in > 0

    def _grant(self, node: Node) -> bool:
        there = self.found if node.until else self.there  # a segment that lacks a judgement is trained again
        free = node.key in there and node.key not in self.budget.paid
        if not free and not self.budget.book(stages=not node.until, epochs=node.epochs):
            return False
        node.booked = not free
        self.tree.grant(node)
        return True

    def _unbook(self, node: Node) -> None:
        """It was let in and will not be trained."""
        if node.booked:
            self.budget.correct(stages=-(not node.until), epochs=-node.epochs)
            node.booked = False

    def _trial(self, asked: Asked, paths: list[list[Node]], value: float | None) -> dict[str, Any]:
        trained = {
            n.key: own(n, "seconds")
            for path in paths
            for node in path
            for n in node.chain
            if n.status == DONE and not n.reused
        }
        last, cut = [path[-1] for path in paths], self.cut.get(asked.number)
        failed = any(n.status == FAILED for n in last)
        return {
            "trial": asked.number,
            "curriculum": ARROW.join(asked.proposal.curriculum),
            "settings": json.dumps(asked.proposal.settings),
            "keys": [n.key for n in last if n.depth == len(asked.proposal.curriculum)],
            "status": "done" if value is not None else "failed" if failed else "pruned" if cut else "dropped",
            "value": value,
            "seeds": len(paths),
            "seconds": sum(trained.values()),
            "error": cut.why if cut else "",
        }


def by_depth(proposals: list[tuple[Asked, Paths]]) -> Level:
    """Every seed's first stage, then every seed's second, in case the budget ends in between."""
    return [(a, [n for ns in zip(*paths, strict=True) for node in ns for n in node.chain]) for a, paths in proposals]


def whole(paths: Paths, asked: Asked) -> bool:
    """Is it known what has become of all of the proposal, in all of the seeds that it has?"""
    nodes = [n for path in paths for n in path]
    long = all(len(path) == len(asked.proposal.curriculum) for path in paths)
    return (long or any(n.status == FAILED for n in nodes)) and not any(n.status == WAITING for n in nodes)


def placed(data: Data) -> dict[str, Any]:
    """A study's data section as a job carries it: its store is found from any working folder."""
    found = data.model_dump(mode="json")
    if data.path and "://" not in data.path:
        found["path"] = str(Path(data.path).expanduser().absolute())
    return found
