"""The samplers that learn nothing: a list from front to back, and chance."""

from __future__ import annotations

import math

from dermsearch.search.propose.sampler import PATIENCE, Sampler
from dermsearch.search.space.proposal import Proposal


class Grid(Sampler):
    """Every proposal of a finite space, short curricula first, so that each costs one stage."""

    weighs_cost = finite = True

    def lag(self) -> float:
        """The whole list."""
        return math.inf

    def propose(self) -> Proposal | None:
        """The next that is not known; behind a stage that failed too, so that tables show what was lost."""
        return next((p for p in self._rest if p not in self.known.asked and not self.known.cut(p)), None)


class Random(Sampler):
    """At random."""

    def lag(self) -> float:
        """Scores teach it nothing."""
        return math.inf

    def propose(self) -> Proposal | None:
        """Draw until it is new; if that takes long, the first of the list that is."""
        for _ in range(PATIENCE):
            if self.known.open(proposal := self.draw()):
                return proposal
        return self.first_open()
