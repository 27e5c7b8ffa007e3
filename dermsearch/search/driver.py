"""The driver of a study: hands out the next missing stage, takes in what became of it, asks the brain for more.

It knows nothing of Ray or threads; an engine calls `next_job` until it says FINISHED and `done` for every job.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dermsearch.config import Data, Study
from dermsearch.downstream import PROTOCOLS
from dermsearch.results.tables import RANDOM_WEIGHTS
from dermsearch.search.brain import Asked, Brain
from dermsearch.search.keys import root_key, score_key, stage_key
from dermsearch.search.space import Proposal, Space
from dermsearch.search.store import StageStore
from dermsearch.search.tree import DONE, FAILED, RUNNING, Node, Tree

WAIT, FINISHED = "wait", "finished"
KEPT = ("seconds", "epochs", "device", "node", "workers")  # of a manifest, in the tables


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
    ) -> None:
        self.study, self.space, self.brain, self.store = study, space, brain, store
        self.fingerprint, self.cache, self.precision, self.on_change = (
            fingerprint,
            cache,
            precision,
            on_change,
        )
        self.weights = weights  # content hash of the file that curricula start with; empty: random
        self.protocols = {
            n: PROTOCOLS[n].Config(**(c or {})).model_dump(mode="json") for n, c in study.downstream.items()
        }
        self.tree = Tree()
        self.scores: dict[str, list[dict[str, Any]]] = {}  # by node key
        self.round: list[tuple[Asked, list[list[Node]]]] = []  # per proposal, a path of nodes per seed
        self.trials: list[dict[str, Any]] = []
        self.over = False
        for seed in study.search.seeds:
            self.tree.root(root_key(study.data, fingerprint, study.encoder, seed, weights), seed)
        if weights:  # what they are worth: random ones are judged beside them, and never trained
            for seed in study.search.seeds:
                self.tree.root(root_key(study.data, fingerprint, study.encoder, seed), seed, RANDOM_WEIGHTS)

    def next_job(self) -> dict[str, Any] | str:
        """A job, WAIT while others must finish first, or FINISHED."""
        node = self._next_node()
        if isinstance(node, str):
            return node
        node.status = RUNNING
        self.on_change(node)
        return self.job(node)

    def idle(self) -> bool:
        """Is everything that is asked for in the store already?"""
        return self._next_node() == FINISHED

    def _next_node(self) -> Node | str:
        """The next node that somebody must work on, past all that the store has."""
        if not self.round and not self.over:
            self._next_round()
        while True:
            node = self.tree.ready()
            if node is not None:
                if self._take_from_store(node):
                    continue
                return node
            if self.tree.running():
                return WAIT
            if self.over or not self._next_round():
                self.over = True
                return FINISHED

    def done(self, key: str, record: dict[str, Any]) -> None:
        """What a worker says of its job."""
        node = self.tree.nodes[key]
        if node.status != RUNNING:
            return  # a second report of the same stage
        node.record |= record
        if record["status"] == "failed":
            self.tree.fail(node, record["error"])
        else:
            node.status, node.reused = DONE, record["reused"]
            self._read_scores(node)
        self.on_change(node)

    def path(self, proposal: Proposal, root: Node) -> list[Node]:
        """The nodes of a proposal from its first task on, made where they are missing."""
        nodes, at = [], root
        for task in proposal.curriculum:
            settings = self.space.settings(task, proposal.settings)
            key = stage_key(at.key, task, self.space.tasks[task].version, settings, self.precision, root.seed)
            at = self.tree.child(at, key, task, settings)
            nodes.append(at)
        return nodes

    def value(self, node: Node) -> float | None:
        """The objective of a judged node."""
        o = self.study.objective
        wanted = (o.protocol, o.metric, o.label, "", "val")
        for row in self.scores.get(node.key, []):
            if (row["protocol"], row["metric"], row["label"], row["class"], row["split"]) == wanted:
                return row["value"]
        return None

    def job(self, node: Node) -> dict[str, Any]:
        """All that a worker needs to know, as JSON."""
        compute = self.study.compute
        return {
            "key": node.key,
            "parent": node.parent.key if node.parent else "",
            "depth": node.depth,
            "task": node.task,
            "curriculum": node.curriculum,
            "settings": node.settings,
            "seed": node.seed,
            "data": placed(self.study.data),
            "encoder": self.study.encoder.model_dump(mode="json"),
            "weights": "" if node.title == RANDOM_WEIGHTS else self.weights,
            "precision": self.precision,
            "protocols": self.protocols,
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

    def cached(self, node: Node) -> dict[str, Any] | None:
        """The stage's manifest, if it is in the store and judged by every protocol of the study."""
        if any(self.store.scores(key) is None for key in self._score_keys(node)):
            return None
        return self.store.manifest(node.key)

    def _take_from_store(self, node: Node) -> bool:
        manifest = self.cached(node)
        if manifest is None:
            return False
        node.status, node.reused = DONE, True
        node.record |= {k: manifest.get(k) for k in KEPT}
        self._read_scores(node)
        self.on_change(node)
        return True

    def _score_keys(self, node: Node) -> list[str]:
        return [
            score_key(node.key, name, PROTOCOLS[name].version, config, self.study.data.labelled, "val", self.precision)
            for name, config in self.protocols.items()
        ]

    def _read_scores(self, node: Node) -> None:
        self.scores[node.key] = [row for key in self._score_keys(node) for row in self.store.scores(key) or []]

    def _next_round(self) -> bool:
        """Tell the finished round in order, ask for another."""
        assert self.brain is not None
        for asked, paths in self.round:
            prefixes = [self._mean(nodes) for nodes in zip(*paths, strict=True)]
            self.brain.tell(asked, prefixes)
            self.trials.append(self._trial(asked, paths, prefixes[-1]))
        asked_now = self.brain.ask()
        self.round = [(a, [self.path(a.proposal, root) for root in self.tree.starts()]) for a in asked_now]
        return bool(self.round)

    def _mean(self, nodes: tuple[Node, ...]) -> float | None:
        """The brain is told the mean over the seeds, and only when every seed has come through."""
        values = [self.value(n) for n in nodes]
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    def _trial(self, asked: Asked, paths: list[list[Node]], value: float | None) -> dict[str, Any]:
        trained = {
            n.key: n.record.get("seconds", 0.0) for path in paths for n in path if n.status == DONE and not n.reused
        }
        last = [path[-1] for path in paths]
        failed = any(n.status == FAILED for n in last)
        return {
            "trial": asked.number,
            "curriculum": last[0].curriculum,
            "settings": json.dumps(asked.proposal.settings),
            "keys": [n.key for n in last],
            "status": "done" if value is not None else "failed" if failed else "pruned",
            "value": value,
            "seeds": len(paths),
            "seconds": sum(trained.values()),
        }


def placed(data: Data) -> dict[str, Any]:
    """A study's data section as a job carries it: its store is found from any working folder."""
    found = data.model_dump(mode="json")
    if data.path and "://" not in data.path:
        found["path"] = str(Path(data.path).expanduser().absolute())
    return found
