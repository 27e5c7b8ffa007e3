"""The proposer: asks a sampler for whole curricula, and tells it what they and their prefixes are worth.

Proposals are told in the order in which they were asked for, and a new one is asked for when so many of them are told
that fewer than `lag` are under way. What is proposed then depends on the study and its scores alone, never on which
stage happened to finish first. A run that was interrupted asks again from the start and finds the answers in the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermsearch.search.propose.journal import Journal
from dermsearch.search.propose.known import Known, stages
from dermsearch.search.propose.pruners import Marks
from dermsearch.search.propose.sampler import SAMPLERS, Sampler
from dermsearch.search.space.proposal import Choices, Proposal
from dermsearch.study.config import Search

AHEAD = 16  # proposals of a sampler that learns nothing and never ends


@dataclass(frozen=True)
class Asked:
    """A proposal under way."""

    number: int
    proposal: Proposal


class Proposer:
    """Asks and tells; no proposal whose score is known, or comes out on another's way, is ever made.

    `price` is what one more stage costs, one by default.
    """

    def __init__(
        self,
        space: Choices,
        search: Search,
        journal: Path | None,
        price: Callable[[Proposal], float] | None = None,
        sharing: bool = True,
    ) -> None:
        self.space, self.search = space, search
        self.known = Known(price, sharing, space.fits)
        sampler, self.marks = SAMPLERS.find(search.sampler), Marks(search, space.length[1])
        behind = sampler.optuna(search.sampler_seed)
        self.journal = Journal(space, behind, sampler.encoding, journal, self.marks.pruner())
        self.reported: dict[Proposal, dict[int, float]] = {}  # by step: what a pruner was told of each prefix
        self.sampler: Sampler = sampler(space, self.known, search, self.journal)
        self.asked = self.told = 0
        self.more = True  # may there be others to ask for
        self.journal.write(at_once=True)

    def ask(self) -> list[Asked]:
        """What may be asked for now, while others are under way; nothing when the search is at its end, either.

        It must be called after every `tell`, so that a proposal knows the same scores whoever is faster.
        """
        found: list[Asked] = []
        while (room := self.asked - self.told < self._lag()) and (proposal := self._next()) is not None:
            self.known.ask(proposal)
            self.journal.begin(proposal)
            found.append(Asked(self.asked, proposal))
            self.asked += 1
        self.more = not room and self.asked != self.search.trials
        self.journal.write()
        return found

    def report(self, asked: Asked, depth: int, rung: int | None, values: Sequence[float]) -> None:
        """What a proposal's stage of that depth is worth by each seed, at the end or at a rung of it: to the pruner."""
        found = self.marks.at(depth, rung, values)
        self.journal.report(asked.proposal, found)
        stage = asked.proposal.prefix(depth)
        before = self.reported.get(asked.proposal.prefix(depth - 1), {}) if depth > 1 else {}
        self.reported[stage] = {**before, **self.reported.get(stage, {}), **found}

    def should_prune(self, asked: Asked) -> bool:
        """Is it, by what was reported of it and of all others until now, not worth going on?"""
        return self.journal.should_prune(asked.proposal)

    def tell(self, asked: Asked, prefixes: list[float | None], pruned: Proposal | None = None) -> None:
        """The scores of the proposal's stages, the last one its own.

        If that is None the first stage without a score has failed, and the rest with it; if it is not, a prefix
        without a score was merely not judged. If `pruned` is given nothing failed, but nothing goes on from there.
        """
        self.told += 1
        proposal, failed = asked.proposal, prefixes[-1] is None and pruned is None
        if pruned is not None:
            self.known.pruned.add(pruned)
        self.journal.tell(proposal, prefixes, pruned is not None)
        for stage, value in zip(stages(proposal), prefixes, strict=True):
            if value is not None:
                if stage != proposal and stage not in self.known.values and self._whole(stage):
                    self.journal.observe(
                        stage, proposal, value, self.reported.get(stage) if self.marks.per_seed else None
                    )
                self.known.tell(stage, value)
            elif failed:
                self.known.tell(stage, None)
                break

    def end(self) -> None:
        """Nothing more is asked or told: let the journal say all of it."""
        self.journal.write(at_once=True)

    def _lag(self) -> float:
        """How many proposals may be under way now; none once there are as many as the study wants."""
        if self.search.trials is not None and self.asked >= self.search.trials:
            return 0
        lag = max(1, self.sampler.lag())
        if self.search.pruner != "none":
            return min(lag, self.search.lag)  # it learns from what is finished, whoever proposes
        if lag == math.inf and self.search.trials is None and not self.sampler.finite:
            return max(AHEAD, self.search.lag)  # a budget ends it, not a number of proposals
        return lag

    def _whole(self, stage: Proposal) -> bool:
        """Is it long enough to be a proposal of its own?"""
        return len(stage.curriculum) >= self.space.length[0]

    def _next(self) -> Proposal | None:
        """Of several candidates, equally good for all one knows, the cheapest; the others wait for their turn."""
        waiting = self.known.waiting
        for proposal in [p for p in waiting if not self.known.worth_asking(p)]:
            waiting.remove(proposal)
            self.journal.drop(self.journal.trials.pop(proposal, None), self.known.values.get(proposal))
        size = 1 if self.sampler.weighs_cost else self.search.candidates
        while len(waiting) < size and (fresh := self.sampler.propose()) is not None:
            waiting.append(fresh)
        if not waiting:
            return None
        best = min(waiting, key=self.known.cost)
        waiting.remove(best)
        return best
