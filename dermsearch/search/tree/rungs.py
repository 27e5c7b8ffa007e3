"""Proposals that go up together, rung by rung, because what is finished decides what comes next.

For every depth: segments of which one rate is chosen, rungs at which a pruner looks at the stages, the stages to their
end, and the pruner again. A decision waits for its whole rung and is taken in the order of the proposals, so that it
does not depend on which stage was faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dermsearch.results.tables.schema import CUT, GOES_ON, NOT_CHOSEN
from dermsearch.search.propose.proposer import Asked, Proposer
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.rates import Selection
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.node import DONE, DROPPED, FAILED, LOST, PRUNED, Node
from dermsearch.search.tree.replicates import Paths
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.words import many

STD, RANK = 0.05, 2.0  # embeddings of a smaller spread, or of a smaller effective rank, have collapsed
Rung = list[tuple[Asked, list[Node]]]  # proposals, and what of them is let in next


@dataclass(frozen=True)
class Cut:
    """That a proposal was pruned."""

    behind: Proposal  # nothing goes on from there
    why: str


class Rungs:
    """Of those that were asked for together."""

    def __init__(
        self,
        study: Study,
        proposer: Proposer,
        branches: Branches,
        store: StageStore,
        proposals: list[tuple[Asked, Paths]],
        seeds: Sequence[int],
        cut: dict[int, Cut],
    ) -> None:
        self.study, self.proposer, self.branches, self.store = study.name, proposer, branches, store
        self.search, self.proposals, self.seeds = study.search, proposals, seeds
        self.cut = cut  # by number, the proposals that were pruned; more are added
        self.more = True  # may there be rungs after this one

    def climb(self) -> Iterator[Rung]:
        """Rung by rung; each must be finished before the next is asked for."""
        longest = max((len(a.proposal.curriculum) for a, _ in self.proposals), default=0)
        for depth in range(1, longest + 1):
            yield from self._choose_rates(depth)
            for rung, until in enumerate(self.search.rungs):
                yield self._nodes(depth, until)
                self._look(depth, rung)
            self.more = depth < longest
            yield self._nodes(depth)
            if self.search.pruner != "none":
                self._look(depth)
        self._drop()

    def _alive(self, depth: int) -> list[tuple[Asked, Paths]]:
        """The proposals that have a stage of that depth and have got there."""
        return [
            (a, paths)
            for a, paths in self.proposals
            if len(a.proposal.curriculum) >= depth
            and a.number not in self.cut
            and not any(n.status in LOST for path in paths for n in path[:depth])
        ]

    def _nodes(self, depth: int, until: int = 0) -> Rung:
        """The stages of that depth, or their segments up to a rung."""
        alive = self._alive(depth)
        return [(a, [n for path in paths for n in self._part(path[depth - 1], until)]) for a, paths in alive]

    def _part(self, stage: Node, until: int) -> list[Node]:
        """The stage itself, or its segment up to that epoch, if that is one of its rungs."""
        if not until:
            return [stage]
        rungs = self.branches.space.rungs(stage.task, stage.settings["train"]["epochs"])
        return [n for n in stage.chain if n.until == until and until in rungs]

    def _drop(self) -> None:
        """What failed with one seed is not gone on with by the others."""
        for _, paths in self.proposals:
            for failed in [n for path in paths for n in path if n.status == FAILED]:
                why = f"dropped: {failed.curriculum} failed with seed {failed.seed}"
                for path in paths:
                    self.branches.tree.end(path[failed.depth - 1].chain[0], DROPPED, why)

    # Rates -------------------------------------------------------------------------------------------------

    def _choose_rates(self, depth: int) -> Iterator[Rung]:
        """Where the stages of that depth have several rates to begin with: begin, then go on with one of them."""
        open_: dict[Proposal, list[Node]] = {}
        begun: Rung = []
        for a, paths in self._alive(depth):
            prefix = a.proposal.prefix(depth)
            if prefix.curriculum.last in self.branches.space.selections and prefix not in self.branches.rates:
                start = self.branches.tree.start(self.seeds[0], prefix.root)
                parent = paths[0][depth - 2] if depth > 1 else start
                open_[prefix] = self.branches.candidates(prefix, parent)
                begun.append((a, open_[prefix]))
        if not begun:
            return
        yield begun
        for prefix, nodes in open_.items():
            task = prefix.curriculum.last
            chosen = choose(nodes, self.branches.space.selections[task])
            self.branches.rates[prefix] = chosen.settings["train"]["lr"]
            for node in nodes:
                node.verdict = GOES_ON if node is chosen else NOT_CHOSEN
                if node is not chosen:
                    self._forget(node)
        for a, paths in self.proposals:
            paths[:] = [self.branches.path(a.proposal, seed) for seed in self.seeds]

    # Pruning -----------------------------------------------------------------------------------------------

    def _look(self, depth: int, rung: int | None = None) -> None:
        """Let the pruner decide on every prefix of that depth, after it has heard of all of them."""
        until = 0 if rung is None else self.search.rungs[rung]
        looked: list[tuple[Asked, Paths, list[float]]] = []
        for a, paths in self._alive(depth):
            nodes = [n for path in paths for n in self._part(path[depth - 1], until)]
            for node in nodes if until else ():
                node.verdict = GOES_ON
            values = [n.value for n in nodes if n.value is not None]
            if nodes and len(values) == len(nodes):
                self.proposer.report(a, depth, rung, values)
                looked.append((a, paths, values))
        decided: dict[Proposal, bool] = {}
        for a, paths, values in looked:
            prefix = a.proposal.prefix(depth)
            if until and paths[0][depth - 1].granted:
                continue  # an earlier proposal has trained it to its end
            if prefix not in decided:
                decided[prefix] = self.proposer.should_prune(a)
            if decided[prefix] and (until or len(a.proposal.curriculum) > depth):
                self._prune(a, paths, depth, until, sum(values) / len(values))

    def _prune(self, asked: Asked, paths: Paths, depth: int, until: int, value: float) -> None:
        """Nothing of the proposal is trained from here on."""
        prefix = asked.proposal.prefix(depth)
        stage = paths[0][depth - 1]
        after = f" after {until} of {many(stage.settings['train']['epochs'], 'epoch')}" if until else ""
        why = f"pruned by {self.search.pruner}: {prefix.curriculum} came to {100 * value:.1f} %{after}"
        self.cut[asked.number] = Cut(prefix, why)
        for path in paths:
            self.branches.tree.end(path[depth - 1].chain[0], PRUNED, why)
            for segment in self._part(path[depth - 1], until) if until else ():
                segment.verdict = CUT
                self._forget(*segment.chain)

    def _forget(self, *segments: Node) -> None:
        """Nothing goes on from them: their states take space for nothing. What another study made is left to it."""
        for segment in segments:
            made = self.store.segment(segment.key)
            if made is None or made["study"] == self.study:
                self.store.clear_partial(segment.key)


def choose(candidates: list[Node], by: Selection) -> Node:
    """The best by the study's objective, or by loss among those that have not collapsed; of equals the largest rate.

    What failed is worst. If all have collapsed, the one of highest rank goes on.
    """

    def merit(node: Node) -> tuple[float, ...]:
        rate = node.settings["train"]["lr"]
        if node.status != DONE:
            return (0, 0, 0, -rate)
        if by.by == "probe":
            return (2, 0, -float("inf") if node.value is None else node.value, rate)
        last = node.record["last"]
        if last["embedding_std"] < STD or last["effective_rank"] < RANK:
            return (1, last["effective_rank"], 0, rate)
        return (2, 0, -last["loss"], rate)

    return max(candidates, key=merit)
