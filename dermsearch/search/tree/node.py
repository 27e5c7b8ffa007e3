"""A node of the stage tree: a stage, a segment of one, a fit, or a root; and what has become of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from dermsearch.curriculum import ROOT_CURRICULUM, Curriculum
from dermsearch.work.job import Judge

WAITING, RUNNING, HELD, DONE, FAILED = "waiting", "running", "held", "done", "failed"
PRUNED, DROPPED = "pruned", "dropped"  # by a pruner; because a stage before it failed
LOST = (FAILED, PRUNED, DROPPED)  # nothing goes on from there


@dataclass(eq=False)
class Node:
    """A stage, a segment of one, a fit, or a root (no task, depth 0) of one seed.

    A segment is the part of a stage up to an epoch. What goes on from it, a longer segment or the stage itself, is
    its child and has its depth and its name. A fit trains a predictor from what its parent hands on, and is a leaf.
    """

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
    until: int = 0  # of a segment: the epoch after which it ends; 0: a whole stage
    stage: str = ""  # of a segment: the key of the stage that it is a part of
    judge: Judge | None = None  # of a fit: whom it is for
    judged: bool = True  # a segment that is compared by its loss needs no protocol
    verdict: str = ""  # of a segment: what became of it
    name: str = ""  # of a root, where a study has several
    title: str = ROOT_CURRICULUM  # of a root: curricula start from it, or it is a baseline from which none does
    order: int = 0  # in which it was proposed
    granted: bool = False  # the budget has room for it; only then does anybody work on it
    booked: bool = False  # and it takes some of that room
    unjudged: str = ""  # why it has no score by the study's objective, though it is finished
    value: float | None = None  # its score by the study's objective
    high: float = float("inf")  # and the upper end of that score's 95 % interval
    cost: float = 0.0  # of training it, in image passes per training image
    expected: float = 0.0  # what it will take, in seconds as soon as any stage has been measured
    ahead: float = 0.0  # the longest chain of expected work that begins with it: nothing is over before that is

    @property
    def kind(self) -> Literal["root", "stage", "segment", "fit"]:
        """Which of these it is."""
        if self.judge is not None:
            return "fit"
        return "segment" if self.until else "stage" if self.parent else "root"

    @property
    def of_root(self) -> bool:
        """Is it a fit of what no stage has trained?"""
        return self.judge is not None and self.parent is not None and self.parent.parent is None

    @cached_property
    def root(self) -> Node:
        """What its curriculum begins with."""
        return self if self.parent is None else self.parent.root

    @property
    def fits(self) -> list[Node]:
        """The predictors that are trained from it."""
        return [child for child in self.children if child.judge is not None]

    @cached_property
    def depth(self) -> int:
        """Tasks behind it; 0 for the root."""
        if self.parent is None:
            return 0
        return self.parent.depth + (self.judge is None and not self.parent.until)

    @cached_property
    def curriculum(self) -> Curriculum:
        """The tasks from the root to here."""
        if self.parent is None:
            return Curriculum(baseline=self.title)
        if self.parent.until or self.judge is not None:
            return self.parent.curriculum
        return self.parent.curriculum.then(self.task)

    @cached_property
    def chain(self) -> list[Node]:
        """A stage behind the segments that it is cut into; a segment behind those before it."""
        return [*(self.parent.chain if self.parent and self.parent.until and not self.judge else []), self]

    @property
    def origin(self) -> Node:
        """The stage or root that it starts from; of a fit perhaps a segment."""
        parent = self.chain[0].parent
        assert parent is not None
        return parent

    @property
    def begins(self) -> int:
        """Epochs of the stage that are behind it when it begins."""
        return self.parent.until if self.parent and not self.judge else 0

    @property
    def ends(self) -> int:
        """The epoch of the stage after which it ends, at the latest."""
        return int(self.until or self.settings["train"]["epochs"])

    @property
    def epochs(self) -> int:
        """Epochs that are its own."""
        return self.ends - self.begins

    def below(self) -> Iterator[Node]:
        """All descendants."""
        for child in self.children:
            yield child
            yield from child.below()


Rank = Callable[[Node], tuple[float, ...]]  # the smallest goes first


def critical_path(node: Node) -> tuple[float, ...]:
    """What most work has to wait for goes first; of equals what follows the better stage, then the earliest."""
    before = node.parent.value if node.parent else None
    return (-node.ahead, -(before or 0.0), node.order)


def startable(node: Node) -> bool:
    """Could somebody begin it now? The root's weights are there before anybody has judged them."""
    if node.status != WAITING or not node.granted:
        return False
    return node.parent is None or node.parent.parent is None or node.parent.status == DONE
