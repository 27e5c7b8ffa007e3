"""The brain: asks a sampler for whole curricula, and tells it what they and their prefixes are worth.

Proposals are asked for in rounds and told in order once the whole round is judged, so what is proposed depends
on the study and its scores alone, never on which stage happened to finish first. A run that was interrupted asks
again from the start and finds the answers in the stage store.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna

from dermsearch.config import Search
from dermsearch.search.journal import Journal
from dermsearch.search.ledger import Ledger, stages
from dermsearch.search.prior import CurriculumPrior
from dermsearch.search.samplers import KINDS, ROUTINE, ByOptuna, Drawn, Listed, Sampler, optuna_sampler
from dermsearch.search.space import Choices, Proposal


@dataclass(frozen=True)
class Asked:
    """A proposal under way."""

    number: int
    proposal: Proposal


class Brain:
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
        self.ledger = Ledger(price, sharing)
        kind = KINDS.get(search.sampler, ROUTINE)
        self.journal = Journal(space, optuna_sampler(kind, search.sampler_seed), kind.encoding, journal)
        self.sampler: Sampler
        if search.sampler == "grid":
            self.sampler = Listed(space, self.ledger)
        elif search.sampler == "random":
            self.sampler = Drawn(space, self.ledger, search.sampler_seed)
        elif search.sampler == "curriculum_prior":
            self.sampler = CurriculumPrior(space, self.ledger, search.sampler_seed, search.round)
        else:
            self.sampler = ByOptuna(space, self.ledger, self.journal, search.round)
        self.asked = 0
        self.pool: list[Proposal] = []  # candidates that wait for their turn
        self.journal.write(at_once=True)

    @property
    def study(self) -> optuna.Study:
        """The search as an Optuna study."""
        return self.journal.study

    @property
    def known(self) -> dict[Proposal, float]:
        """The score of every proposal that has one, asked for or come out on the way."""
        return {p: v for p, v in self.ledger.values.items() if self._whole(p)}

    def ask(self) -> list[Asked]:
        """The next round; empty when the budget or the space is used up."""
        left = math.inf if self.search.trials is None else self.search.trials - self.asked
        limit = min(left, self.sampler.batch())
        if limit == math.inf and self.search.sampler != "grid":  # a budget ends it, not a number of proposals
            limit = self.search.round
        found: list[Asked] = []
        while len(found) < limit and (proposal := self._next()) is not None:
            self.ledger.ask(proposal)
            self.journal.begin(proposal)
            found.append(Asked(self.asked, proposal))
            self.asked += 1
        self.journal.write(at_once=not found)
        return found

    def tell(self, asked: Asked, prefixes: list[float | None]) -> None:
        """The scores of the proposal's stages, the last one its own.

        If that is None the first stage without a score has failed, and the rest with it; if it is not, a prefix
        without a score was merely not judged.
        """
        proposal, failed = asked.proposal, prefixes[-1] is None
        self.journal.tell(proposal, prefixes)
        for stage, value in zip(stages(proposal), prefixes, strict=True):
            if value is not None:
                if stage != proposal and stage not in self.ledger.values and self._whole(stage):
                    self.journal.observe(stage, value)
                self.ledger.tell(stage, value)
            elif failed:
                self.ledger.tell(stage, None)
                break

    def _whole(self, stage: Proposal) -> bool:
        """Is it long enough to be a proposal of its own?"""
        return len(stage.curriculum) >= self.space.length[0]

    def _next(self) -> Proposal | None:
        """Of several candidates, equally good for all one knows, the cheapest; the others wait for their turn."""
        for proposal in [p for p in self.pool if not self.ledger.open(p)]:
            self.pool.remove(proposal)
            self.journal.drop(self.journal.trials.pop(proposal, None), self.ledger.values.get(proposal))
        size = 1 if self.sampler.weighs_cost else self.search.candidates
        while len(self.pool) < size and (fresh := self.sampler.propose()) is not None:
            self.pool.append(fresh)
        if not self.pool:
            return None
        best = min(self.pool, key=self.ledger.cost)
        self.pool.remove(best)
        return best
