"""What the budget has room for: stages are let in as they are proposed, and none begins when the time is up.

What a stage did not need after all is given back when its proposal is told, or when nothing is under way, and not when
it comes out: who is faster must not decide what there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dermsearch.search.propose.proposer import Asked
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.durations import Durations, own
from dermsearch.search.tree.look_up import LookUp
from dermsearch.search.tree.node import DONE, HELD, RUNNING, WAITING, Node
from dermsearch.search.tree.rungs import Rung
from dermsearch.search.tree.tree import Tree


class Admission:
    """Books nodes when it lets them in, and puts right what they came to."""

    def __init__(self, tree: Tree, budget: Budget, look_up: LookUp, durations: Durations, gpus: float) -> None:
        self.tree, self.budget, self.look_up, self.durations = tree, budget, look_up, durations
        self.gpus = gpus  # that a stage takes
        self.pending: deque[tuple[Asked, list[Node]]] = deque()  # proposals that there may be no room for
        self.booked: list[Node] = []  # what takes room, and perhaps some that does no longer
        self.counted: set[int] = set()  # numbers of the proposals that there was room for

    def propose(self, rung: Rung, quiet: bool = True) -> None:
        """Let it in as far as there is room. It is quiet where nothing is under way."""
        self.pending = deque(rung)
        new = [each for _, nodes in rung for node in nodes for each in (node, *node.fits) if not each.granted]
        self.look_up.look({node.key: node for node in new}.values())
        self.admit(quiet)

    def admit(self, quiet: bool = True) -> bool:
        """Let in what there is room for, in the order proposed; False if that is nothing.

        Where others are under way, a stage before it may have failed by now or may be about to: room is booked anyhow.
        """
        let_in = 0
        while self.pending:
            asked, nodes = self.pending[0]
            if asked.number not in self.counted and not self.budget.book(curricula=1):
                break
            self.counted.add(asked.number)
            for node in [each for stage in nodes for each in (stage, *stage.fits)]:
                if node.granted or (quiet and node.status != WAITING):
                    continue
                if not self._grant(node):
                    return let_in > 0
                let_in += 1
            self.pending.popleft()
            let_in += 1
        return let_in > 0

    def _grant(self, node: Node) -> bool:
        free = self.look_up.has(node) and node.key not in self.budget.paid
        if not free and not self.budget.book(stages=node.kind == "stage", epochs=node.epochs):
            return False
        if not free:
            node.booked = True
            self.booked.append(node)
        self.tree.grant(node)
        return True

    def unbook(self, node: Node) -> None:
        """It was let in and will not be trained."""
        if node.booked:
            self.budget.correct(stages=-(node.kind == "stage"), epochs=-node.epochs)
            node.booked = False

    def settle(self, node: Node) -> None:
        """It was trained: the hours that it took are spent."""
        if self._paid(node):
            seconds = own(node, "seconds") + (node.record.get("judge_seconds") or 0.0)
            self.budget.correct(gpu_hours=self._gpu_hours(seconds))

    def close(self, nodes: Iterable[Node], asked: Asked | None = None) -> None:
        """Nothing more comes of them: give back what was never begun, and the epochs before which others ended."""
        if self.pending and self.pending[0][0] is asked:
            self.pending.popleft()
        for node in nodes:
            if not node.record:
                self.unbook(node)
            elif node.booked:
                early = own(node, "epochs") - node.epochs if node.status == DONE and node.record.get("epochs") else 0
                self.budget.correct(epochs=early)
                node.booked = False

    def close_all(self) -> None:
        """Nothing is under way."""
        self.close(self.booked)
        self.booked = []

    def settle_failed(self, node: Node) -> None:
        """It failed: the hours until then are spent."""
        if self._paid(node):
            seconds = node.record.get("ended", 0.0) - node.record.get("began", 0.0)
            self.budget.correct(gpu_hours=max(0.0, seconds) * self.gpus / 3600)

    def _paid(self, node: Node) -> bool:
        """By this study: what was let in, and the fits of roots, which are in no proposal."""
        return node.booked or (node.of_root and (not node.reused or node.key in self.budget.paid))

    def time_is_up(self) -> bool:
        """May no further stage begin?"""
        ahead = sum(n.expected for n in self.tree.running() if n.status == RUNNING)  # what others hold, they pay for
        return self.budget.time_is_up(self._gpu_hours(ahead))

    def turn_away(self) -> bool:
        """When the time is up, wait no longer for what other runs work on, who may be at it for long; was there any?"""
        under_way = self.tree.running()
        if not under_way or not all(n.status == HELD and n.task for n in under_way) or not self.time_is_up():
            return False
        for held in under_way:
            self.tree.release(held)
            self.tree.leave(held)
        return True

    def _gpu_hours(self, seconds: float) -> float:
        """Of so many seconds of stages; nothing while it is not known how long those take."""
        return seconds * self.gpus / 3600 if self.durations.known else 0.0
