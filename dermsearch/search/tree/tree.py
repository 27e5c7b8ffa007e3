"""The stage tree: all proposed curricula merged on their shared prefixes, and what could start next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.search.tree.node import (
    DONE,
    DROPPED,
    FAILED,
    LOST,
    RUNNING,
    WAITING,
    Node,
    Rank,
    critical_path,
    startable,
)


class Tree:
    """Nodes by key, in the order in which they were proposed, and a heap of those that could start.

    An entry of the heap is not moved when its node's rank changes: the node gets another, and the old one is
    put right when it comes up.
    """

    def __init__(self, rank: Rank = critical_path, expect: Callable[[Node], float] = lambda node: node.cost) -> None:
        self.nodes: dict[str, Node] = {}
        self.roots: list[Node] = []  # those of baselines too
        self.rank, self.expect = rank, expect
        self.most = 1  # stages that were under way at once
        self.wanted = self.settled = 0  # stages let in or dropped, and those of them of which nothing more will come
        self._heap: list[tuple[tuple[float, ...], int, Node]] = []  # (rank, a number of its own, node)
        self._pushed = itertools.count()
        self._under_way: dict[str, Node] = {}  # running here, or held by another run

    def root(self, key: str, seed: int, title: str = ROOT_CURRICULUM, name: str = "") -> Node:
        """A root of a seed, made on first use. Nobody asks a budget for its judging."""
        if key not in self.nodes:
            self.nodes[key] = Node(key, seed, title=title, name=name, order=len(self.nodes), granted=True)
            self.roots.append(self.nodes[key])
            self._push(self.nodes[key])
        return self.nodes[key]

    def start(self, seed: int, name: str = "") -> Node:
        """The root that curricula of that seed start from; of several, the one of that name."""
        return next(n for n in self.roots if (n.seed, n.name, n.title) == (seed, name, ROOT_CURRICULUM))

    def child(
        self, parent: Node, key: str, task: str, settings: dict[str, Any], cost: float = 1.0, **more: Any
    ) -> Node:
        """The stage (or segment, or fit) of that key under `parent`, made on first use; born lost under one that is."""
        if key in self.nodes:
            return self.nodes[key]
        node = Node(key, parent.seed, parent, task, settings, order=len(self.nodes), cost=cost, **more)
        self.nodes[key] = node
        parent.children.append(node)
        if parent.parent and parent.status in LOST:
            self._drop(node, parent)
        return node

    def grant(self, node: Node) -> None:
        """From here on it will be worked on as soon as its parent is finished."""
        node.granted = True
        if node.status in LOST:  # it was born under a stage that failed
            return
        self.wanted += 1
        node.expected = node.ahead = self.expect(node)
        self._push(node)
        above = node.parent
        while above is not None and above.ahead < above.expected + node.ahead:
            above.ahead = above.expected + node.ahead
            self._push(above)
            node, above = above, above.parent

    def expect_anew(self) -> None:
        """Something was learnt of how long stages take: rank all of them again."""
        for node in reversed(self.nodes.values()):  # children come after their parents
            node.expected = self.expect(node) if node.parent else 0.0
            later = (child.ahead for child in node.children if child.granted and child.status not in LOST)
            node.ahead = node.expected + max(later, default=0.0)
        self._heap = [(self.rank(n), next(self._pushed), n) for n in self.nodes.values() if startable(n)]
        heapq.heapify(self._heap)

    def ready(self) -> Node | None:
        """The first by rank of the nodes that could start now; it stays the first until its status changes."""
        while self._heap:
            rank, _, node = self._heap[0]
            if startable(node) and rank == self.rank(node):
                return node
            heapq.heappop(self._heap)
            self._push(node)
        return None

    def running(self) -> list[Node]:
        """The nodes that somebody works on, here or in another run."""
        return list(self._under_way.values())

    def begin(self, node: Node, status: str = RUNNING) -> None:
        """Somebody works on it: a worker of this run, or another run (HELD)."""
        node.status = status
        self._under_way[node.key] = node
        self.most = max(self.most, sum(1 for n in self._under_way.values() if n.status == RUNNING))

    def release(self, node: Node) -> None:
        """Nobody works on it any more, and it is not finished."""
        self._under_way.pop(node.key, None)
        node.status = WAITING
        self._push(node)

    def leave(self, node: Node) -> None:
        """The budget has no room for it after all."""
        node.granted = False
        self.wanted -= 1

    def done(self, node: Node, reused: bool) -> None:
        """It is finished: what waits for it could start."""
        self._under_way.pop(node.key, None)
        node.status, node.reused = DONE, reused
        self.settled += bool(node.parent)
        for child in node.children:
            self._push(child)

    def fail(self, node: Node, error: str) -> None:
        """Record a failure and drop what depends on it. On a root's judging nothing depends."""
        self._under_way.pop(node.key, None)
        node.status, node.error = FAILED, error
        self.settled += bool(node.parent)
        for each in node.below() if node.parent else ():
            self._drop(each, node)

    def end(self, node: Node, status: str, why: str) -> None:
        """What of it, and of what follows, is not trained will not be (PRUNED, DROPPED); what is finished stays."""
        for each in (node, *node.below()):
            if each.status == WAITING:
                self.settled += 1
                self.wanted += not each.granted
                each.status, each.error = status, why

    def stages(self) -> list[Node]:
        """All stages: neither roots nor segments nor fits."""
        return [n for n in self.trained() if n.kind == "stage"]

    def fits(self) -> list[Node]:
        """All fits."""
        return [n for n in self.trained() if n.kind == "fit"]

    def trained(self) -> list[Node]:
        """All nodes but the roots: what takes time."""
        return [n for n in list(self.nodes.values()) if n.parent is not None]  # others may add some meanwhile

    def _push(self, node: Node) -> None:
        if startable(node):
            heapq.heappush(self._heap, (self.rank(node), next(self._pushed), node))

    def _drop(self, node: Node, because: Node) -> None:
        self.settled += 1
        self.wanted += not node.granted
        same = because.until and node.depth == because.depth and node.judge is None
        if same and because.status == FAILED:  # the same stage goes no further
            node.status, node.error = FAILED, because.error
            return
        if because.status == FAILED:
            node.status, node.error = DROPPED, f"dropped: {because.curriculum} failed"
        else:
            node.status, node.error = because.status, because.error
