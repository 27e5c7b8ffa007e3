"""The stage tree: all proposed curricula merged on their shared prefixes, and what has become of each stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dermsearch.results.tables import ARROW, ROOT_CURRICULUM

WAITING, RUNNING, DONE, FAILED, PRUNED = "waiting", "running", "done", "failed", "pruned"


@dataclass(eq=False)
class Node:
    """A stage, or a root (no task, depth 0) of one seed."""

    key: str
    seed: int
    parent: Node | None = None
    task: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    status: str = WAITING
    reused: bool = False
    error: str = ""
    record: dict[str, Any] = field(default_factory=dict)  # what its training and judging came to
    title: str = ROOT_CURRICULUM  # of a root: curricula start from it, or it is a baseline from which none does

    @property
    def depth(self) -> int:
        """Tasks behind it; 0 for the root."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def curriculum(self) -> str:
        """The tasks from the root to here."""
        if self.parent is None:
            return self.title
        return self.task if self.parent.parent is None else self.parent.curriculum + ARROW + self.task

    def below(self) -> Iterator[Node]:
        """All descendants."""
        for child in self.children:
            yield child
            yield from child.below()


class Tree:
    """Nodes by key, in the order in which they were proposed."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def root(self, key: str, seed: int, title: str = ROOT_CURRICULUM) -> Node:
        """A root of a seed, made on first use."""
        return self.nodes.setdefault(key, Node(key, seed, title=title))

    def starts(self) -> list[Node]:
        """The roots that curricula start from, one per seed."""
        return [n for n in self.nodes.values() if n.parent is None and n.title == ROOT_CURRICULUM]

    def child(self, parent: Node, key: str, task: str, settings: dict[str, Any]) -> Node:
        """The stage of that key under `parent`, made on first use; born pruned under a stage that failed."""
        if key in self.nodes:
            return self.nodes[key]
        node = Node(key, parent.seed, parent, task, settings)
        self.nodes[key] = node
        parent.children.append(node)
        if parent.parent and parent.status in (FAILED, PRUNED):
            self._drop(node, parent)
        return node

    def ready(self) -> Node | None:
        """The waiting node that could start now and that most others wait for. Roots need no training."""
        found = [
            n
            for n in self.nodes.values()
            if n.status == WAITING and (n.depth < 2 or (n.parent and n.parent.status == DONE))
        ]
        return max(found, key=lambda n: sum(1 for _ in n.below()), default=None)  # the earliest of equals

    def running(self) -> list[Node]:
        """The nodes that somebody works on."""
        return [n for n in self.nodes.values() if n.status == RUNNING]

    def fail(self, node: Node, error: str) -> None:
        """Record a failure and drop what depends on it. On the judging of a root nothing depends."""
        node.status, node.error = FAILED, error
        for lost in node.below() if node.parent else ():
            self._drop(lost, node)

    def stages(self) -> list[Node]:
        """All nodes but the roots."""
        return [n for n in self.nodes.values() if n.parent is not None]

    @staticmethod
    def _drop(node: Node, because: Node) -> None:
        node.status = PRUNED
        node.error = because.error if because.status == PRUNED else f"dropped: {because.curriculum} failed"
