"""Proposals in rounds: asked for together, let in part by part, and told in order once all of them are finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dermsearch.search.propose.proposer import Asked, Proposer
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.space import Space
from dermsearch.search.tree.admission import Admission
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.node import FAILED, WAITING, Node
from dermsearch.search.tree.replicates import Paths, contenders, highest, mean
from dermsearch.search.tree.rungs import Cut, Rung, Rungs
from dermsearch.search.tree.trials import trial
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study


class Rounds:
    """What a run has asked for, now and until now."""

    def __init__(
        self,
        study: Study,
        space: Space,
        proposer: Proposer,
        branches: Branches,
        admission: Admission,
        store: StageStore,
    ) -> None:
        self.study, self.space, self.proposer, self.store = study, space, proposer, store
        self.branches, self.admission, self.tree = branches, admission, branches.tree
        self.now: list[tuple[Asked, Paths]] = []  # per proposal of this round, a path of nodes per seed
        self.rungs: Iterator[Rung] = iter(())  # of it: what may be let in when all that was is finished
        self.cut: dict[int, Cut] = {}  # numbers of proposals that a pruner ended
        self.seeds: dict[str, list[Node]] = {}  # by the first one's key: a stage's nodes, of the seeds that it has
        self.best: float | None = None  # the highest mean over all seeds
        self.trials: list[dict[str, Any]] = []  # of the rounds that were told, a row per proposal

    def go_on(self) -> bool:
        """All that was let in is finished: let in more, of this round or another; False at the end of the run."""
        if self.admission.budget.out_of_time:
            return False
        if self.admission.pending:
            return self.admission.admit()
        return self._next_rung() or self._more_seeds() or self.next()

    def next(self) -> bool:
        """Tell the finished round in order, ask for another and let in what the budget has room for."""
        self.tell()
        asked_now = self.proposer.ask()
        seeds = self.study.search.seeds[: 1 if self.study.search.replicates == "leaders" else None]
        self.now = [(a, [self.branches.path(a.proposal, seed) for seed in seeds]) for a in asked_now]
        self.rungs = self._rungs(seeds)
        self._next_rung()
        return bool(self.now)

    def tell(self) -> None:
        """Close the round: what is complete of it goes to the proposer and into the table of trials, in order."""
        for asked, paths in self.now:
            cut = self.cut.get(asked.number)
            if cut is None and not (asked.number in self.admission.counted and whole(paths, asked)):
                continue  # the budget ended before it
            replicates = [self.seeds.get(nodes[0].key, list(nodes)) for nodes in zip(*paths, strict=True)]
            prefixes = [mean(nodes) for nodes in replicates]
            prefixes += [None] * (len(asked.proposal.curriculum) - len(prefixes))
            self.proposer.tell(asked, prefixes, cut.behind if cut else None)
            self.trials.append(trial(asked, paths, prefixes[-1], cut))
        self.now = []

    def _rungs(self, seeds: Sequence[int]) -> Iterator[Rung]:
        """The round in parts, each of which must be finished before the next is known: mostly just one."""
        if self.space.selections or self.study.search.pruner != "none":
            return Rungs(self.study, self.proposer, self.branches, self.store, self.now, seeds, self.cut).climb()
        return iter([by_depth(self.now)])

    def _next_rung(self) -> bool:
        """Let in what follows of the round; False at its end, or if the budget has no room for any more."""
        for rung in self.rungs:
            self.admission.propose(rung)
            if self.admission.pending or any(n.status == WAITING for _, nodes in rung for n in nodes):
                return True
        return False

    def _more_seeds(self) -> bool:
        """Let what may still be the best in with all of its seeds; False where nothing else may be.

        A shorter curriculum that came out on a proposal's way may be the best as well.
        """
        seeds = self.study.search.seeds
        if self.study.search.replicates == "all" or len(seeds) == 1:
            return False
        standing: dict[str, tuple[Asked, Paths, Proposal]] = {}
        for asked, paths in self.now:
            for depth, node in enumerate(paths[0] if asked.number not in self.cut else (), start=1):
                if depth >= self.space.length[0]:
                    standing.setdefault(node.key, (asked, paths, asked.proposal.prefix(depth)))
                    self.seeds.setdefault(node.key, [node])
        stages = [self.seeds[key] for key in standing]
        self.best = highest(stages, self.best)
        more: list[tuple[Asked, Paths]] = []
        for first in contenders(stages, self.best):
            asked, paths, stage = standing[first.key]
            replicates = [self.branches.path(stage, seed) for seed in seeds]
            for nodes in zip(*replicates, strict=True):
                self.seeds[nodes[0].key] = list(nodes)
            if stage == asked.proposal:
                paths += replicates[1:]
            more.append((asked, replicates))
        self.admission.propose(by_depth(more))
        return bool(more)


def by_depth(proposals: list[tuple[Asked, Paths]]) -> Rung:
    """Every seed's first stage, then every seed's second, in case the budget ends in between."""
    return [(a, [n for ns in zip(*paths, strict=True) for node in ns for n in node.chain]) for a, paths in proposals]


def whole(paths: Paths, asked: Asked) -> bool:
    """Is it known what has become of all of the proposal, in all of the seeds that it has?"""
    nodes = [each for path in paths for node in path for each in (node, *node.fits)]
    long = all(len(path) == len(asked.proposal.curriculum) for path in paths)
    return (long or any(n.status == FAILED for path in paths for n in path)) and not any(
        n.status == WAITING for n in nodes
    )
