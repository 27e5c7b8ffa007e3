"""How long stages take: by what stages of the same task took, and before any is measured by the tasks' own cost.

Judging takes every stage as long, whatever it costs to train, and a process's first time longer: that imports and warms
up. So training is a speed, and of judging the shortest time counts that was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dermsearch.search.tree.node import HELD, RUNNING, WAITING, Node
from dermsearch.search.tree.tree import Tree

MOVED = 0.02  # relative change of a task's speed after which the tree is ranked anew


class Durations:
    """Seconds per unit of cost, by task: measured by this run, else by whoever put a stage into the store."""

    def __init__(self) -> None:
        self.own: dict[str, tuple[float, float]] = {}  # task -> (cost, seconds) of the stages that were measured
        self.others: dict[str, tuple[float, float]] = {}
        self.judging: dict[str, float] = {}  # what is judged -> the fewest seconds that it took

    @property
    def known(self) -> bool:
        """Are expectations in seconds?"""
        return bool(self.own or self.others)

    def learn(self, node: Node) -> bool:
        """Take in a finished stage or root; True if that changes what is to be expected."""
        before = self.expected(node)
        if judged := node.record.get("judge_seconds"):
            self.judging[what(node)] = min(judged, self.judging.get(what(node), judged))
        seconds = own(node, "seconds")
        if not node.task or not seconds or not node.cost:
            return False
        tally = self.others if node.reused else self.own
        cost, spent = tally.get(node.task, (0.0, 0.0))
        tally[node.task] = cost + node.cost, spent + seconds
        return abs(self.expected(node) - before) > MOVED * before

    def rate(self, task: str) -> float:
        """Seconds per unit of cost: of the task, else of all tasks, else one, so that expectations are costs."""
        for tally in (self.own, self.others):
            if task in tally:
                return tally[task][1] / tally[task][0]
        for tally in (self.own, self.others):
            if tally:
                measured = list(tally.values())  # who shows how long it takes asks while others are added
                return sum(s for _, s in measured) / sum(c for c, _ in measured)
        return 1.0

    def expected(self, node: Node) -> float:
        """What a stage will take: in seconds once any is known."""
        return node.cost * self.rate(node.task) + (self.judging.get(what(node), 0.0) if self.known else 0.0)

    def left(
        self, tree: Tree, epochs: Mapping[str, int], spent: Mapping[str, float] = MappingProxyType({})
    ) -> float | None:
        """Seconds until all that was granted is finished, given the epochs that stages under way have behind them.

        Until a stage is finished those go by the seconds that such epochs took.

        That is the work left over as many stages as this run has under way at once, but no less than the longest
        chain that is still to be gone through.
        """
        pace = 1.0 if self.known else pace_of(tree, epochs, spent)
        if not pace:
            return None
        work = longest = 0.0
        for node in tree.trained():
            if node.status not in (WAITING, RUNNING, HELD) or not node.granted:
                continue
            behind = share(node, epochs) * node.cost * self.rate(node.task)  # what is trained is yet to be judged
            work += node.expected - behind
            longest = max(longest, node.ahead - behind)
        return pace * max(work / tree.most, longest)


def share(node: Node, epochs: Mapping[str, int]) -> float:
    """How much of a stage is behind it."""
    return max(0, epochs.get(node.key, 0) - node.begins) / node.epochs


def pace_of(tree: Tree, epochs: Mapping[str, int], spent: Mapping[str, float]) -> float:
    """Seconds per unit of cost, from stages under way; 0 before any has an epoch behind it."""
    begun = [node for node in tree.trained() if node.status in (RUNNING, HELD) and share(node, epochs)]
    cost = sum(share(node, epochs) * node.cost for node in begun)
    return sum(spent.get(node.key, 0.0) for node in begun) / cost if cost else 0.0


def what(node: Node) -> str:
    """What is judged as long as this is: a fit of the same protocol, a segment, a stage or root."""
    return node.task if node.judge else "segment" if node.until else "stage"


def own(node: Node, field: str) -> float:
    """The seconds or epochs of its own; a stage's record tells of all, those of its segments too."""
    before = node.parent.record.get(field) if node.parent and node.parent.until and not node.judge else 0.0
    return max(0.0, (node.record.get(field) or 0.0) - (before or 0.0))
