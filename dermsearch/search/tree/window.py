"""The proposals under way: asked for as others are told, let in, and told in the order in which they were asked for.

Mostly each is let in whole, and told as soon as it and all before it are finished. Where what is finished decides what
is trained next (a pruner compares, a rate is chosen, leaders get further seeds) those under way go together: let in
part by part, told once all of them are finished, and only then are others asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from dermsearch.search.propose.proposer import Asked, Proposer
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.tree.admission import Admission
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.node import FAILED, HELD, RUNNING, WAITING, Node
from dermsearch.search.tree.replicates import Paths, contenders, highest, mean
from dermsearch.search.tree.rungs import Cut, Rung, Rungs
from dermsearch.search.tree.trials import trial
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study


class Window:
    """What a run has asked for and not yet told, and the table of what it has told.

    What is asked for and booked depends on what was told before alone, never on who was faster.
    """

    def __init__(
        self,
        study: Study,
        proposer: Proposer,
        branches: Branches,
        admission: Admission,
        store: StageStore,
    ) -> None:
        self.study, self.proposer, self.store = study, proposer, store
        self.branches, self.admission, self.tree = branches, admission, branches.tree
        self.climbs = bool(branches.space.selections) or study.search.pruner != "none"
        self.climb: Rungs | None = None
        self.leaders = study.search.replicates == "leaders" and len(study.search.seeds) > 1
        self.together = self.climbs or self.leaders
        self.begun = False
        self.now: deque[tuple[Asked, Paths]] = deque()  # of each proposal a path of nodes per seed
        self.rungs: Iterator[Rung] = iter(())  # of those that go together: what may be let in once all else is finished
        self.cut: dict[int, Cut] = {}  # by number, the proposals that a pruner ended
        self.seeds: dict[str, list[Node]] = {}  # by the first one's key: a stage's nodes, of the seeds that it has
        self.best: float | None = None  # the highest mean over all seeds
        self.trials: list[dict[str, Any]] = []  # a row per proposal that was told

    def move(self) -> None:
        """Tell the proposals whose turn it is, and ask for those that may follow."""
        if not self.begun:
            self.begun = True
            self._ask()
        while not self.together and self.now and self._finished(*self.now[0]):
            self._tell(*self.now.popleft())
            self.admission.admit(quiet=False)
            if not self.admission.pending:
                self._ask()

    def go_on(self) -> bool:
        """All that was let in is finished: let in more, of these proposals or others; False at the end of the run."""
        self.admission.close_all()
        if self.admission.budget.out_of_time:
            return False
        if self.admission.pending:
            return self.admission.admit()
        return self.together and (self._next_rung() or self._more_seeds() or self._others())

    @property
    def more(self) -> bool:
        """May other stages follow those that were let in?"""
        return self.proposer.more or self.leaders or (self.climb is not None and self.climb.more)

    def end(self) -> None:
        """Tell what is complete, and give back what was booked for stages that nobody began."""
        self.admission.close_all()
        while self.now:
            self._tell(*self.now.popleft())

    def _others(self) -> bool:
        """All that went together is finished: tell of it, and ask for others."""
        while self.now:
            self._tell(*self.now.popleft())
        self._ask()
        return bool(self.now)

    def _ask(self) -> None:
        """Ask for what may be under way beside the others, and let in what the budget has room for."""
        if self.admission.budget.out_of_time:
            return
        seeds = self.study.search.seeds[: 1 if self.study.search.replicates == "leaders" else None]
        asked_now = [(a, [self.branches.path(a.proposal, seed) for seed in seeds]) for a in self.proposer.ask()]
        if asked_now:
            self.now += asked_now
            self.rungs = self._rungs(asked_now, seeds)
            self._next_rung()

    def _tell(self, asked: Asked, paths: Paths) -> None:
        """What is known of it goes to the proposer and into the table of trials."""
        nodes = [n for path in paths for stage in path for node in stage.chain for n in (node, *node.fits)]
        self.admission.close(nodes, asked)
        cut = self.cut.get(asked.number)
        if cut is None and not self._finished(asked, paths):
            return  # the budget ended before it
        replicates = [self.seeds.get(nodes[0].key, list(nodes)) for nodes in zip(*paths, strict=True)]
        prefixes = [mean(nodes) for nodes in replicates]
        prefixes += [None] * (len(asked.proposal.curriculum) - len(prefixes))
        self.proposer.tell(asked, prefixes, cut.behind if cut else None)
        self.trials.append(trial(asked, paths, prefixes[-1], cut))

    def _finished(self, asked: Asked, paths: Paths) -> bool:
        """Is it known what has become of all of it, in all of the seeds that it has?"""
        nodes = [each for path in paths for node in path for each in (node, *node.fits)]
        if asked.number not in self.admission.counted or any(n.status in (WAITING, RUNNING, HELD) for n in nodes):
            return False
        whole = all(len(path) == len(asked.proposal.curriculum) for path in paths)
        return whole or any(n.status == FAILED for path in paths for n in path)

    def _rungs(self, asked_now: list[tuple[Asked, Paths]], seeds: Sequence[int]) -> Iterator[Rung]:
        """Proposals in parts, each of which must be finished before the next is known: mostly just one."""
        if self.climbs:
            self.climb = Rungs(self.study, self.proposer, self.branches, self.store, asked_now, seeds, self.cut)
            return self.climb.climb()
        return iter([by_depth(asked_now)])

    def _next_rung(self) -> bool:
        """Let in what follows of them; False at their end, or if the budget has no room for any more."""
        for rung in self.rungs:
            self.admission.propose(rung, quiet=self.together)
            if self.admission.pending or any(n.status == WAITING for _, nodes in rung for n in nodes):
                return True
        return False

    def _more_seeds(self) -> bool:
        """Let what may still be the best in with all of its seeds; False where nothing else may be.

        A shorter curriculum that came out on a proposal's way may be the best as well.
        """
        seeds = self.study.search.seeds
        if not self.leaders:
            return False
        standing: dict[str, tuple[Asked, Paths, Proposal]] = {}
        for asked, paths in self.now:
            for depth, node in enumerate(paths[0] if asked.number not in self.cut else (), start=1):
                if depth >= self.branches.space.length[0]:
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
