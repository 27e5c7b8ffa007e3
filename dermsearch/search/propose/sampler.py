"""Who proposes: what every sampler is, and those that a study may name. docs/samplers.md shows a whole one."""

from __future__ import annotations

import numpy as np
import optuna

from dermsearch.curriculum import Curriculum
from dermsearch.registry import Registry
from dermsearch.search.propose.encodings import Encoding, Slots
from dermsearch.search.propose.journal import Journal
from dermsearch.search.propose.known import Known
from dermsearch.search.space.dimensions import draw
from dermsearch.search.space.proposal import Choices, Proposal
from dermsearch.study.config import Search

PATIENCE = 20  # proposals in a row that are known already, after which the first unknown one is taken
NOTHING = Proposal(Curriculum())

SAMPLERS = Registry(
    "sampler",
    "dermsearch.samplers",
    {
        "grid": "dermsearch.search.propose.samplers:Grid",
        "random": "dermsearch.search.propose.samplers:Random",
        "curriculum_prior": "dermsearch.search.propose.curriculum_prior:CurriculumPrior",
        "tpe": "dermsearch.search.propose.by_optuna:TPE",
        "gp": "dermsearch.search.propose.by_optuna:GP",
        "cmaes": "dermsearch.search.propose.by_optuna:CMAES",
        "nsgaii": "dermsearch.search.propose.by_optuna:NSGAII",
        "nsgaiii": "dermsearch.search.propose.by_optuna:NSGAIII",
        "qmc": "dermsearch.search.propose.by_optuna:QMC",
    },
)


class Sampler:
    """Proposes one curriculum at a time, by the space and by what is known of it."""

    weighs_cost = False  # does it look at what a proposal costs by itself?
    learns_from = False  # can it begin with what other tables say?
    finite = False  # does it list a space from front to back, so that it ends by itself?
    encoding: Encoding = Slots()  # how the journal writes an order

    def __init__(self, space: Choices, known: Known, search: Search, journal: Journal) -> None:
        self.space, self.known, self.search, self.journal = space, known, search, journal
        self.random = np.random.default_rng(search.sampler_seed)
        finite = all(d.kind == "choice" for d in space.dimensions)
        self._rest = space.every() if finite else iter(())

    @classmethod
    def optuna(cls, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler behind it; one that proposes by itself leaves Optuna to keep the journal."""
        return optuna.samplers.RandomSampler(seed=seed)

    def lag(self) -> float:
        """How many of its proposals may be under way: it makes no more before it has heard of the first of them."""
        return self.search.lag

    def propose(self) -> Proposal | None:
        """The next proposal, one that `self.known.open` lets through; None once there is no other."""
        raise NotImplementedError(type(self).__name__)

    def draw(self, begin: Proposal = NOTHING) -> Proposal:
        """One at random that begins with these stages, where any does: a length, then task by task, then settings."""
        curriculum, longest = begin.curriculum, self.space.length[1]
        length = int(self.random.integers(max(self.space.length[0], len(curriculum)), longest + 1))
        for left in reversed(range(length - len(curriculum))):
            allowed = self.space.may_follow(curriculum, left=left)
            if not allowed:  # so long a curriculum does not begin with them
                return self.draw()
            curriculum = curriculum.then(allowed[self.random.integers(len(allowed))])
        values, settings = [], begin.settings
        for d in self.space.dimensions:
            if d.of(curriculum):
                values.append((d.name, settings[d.name] if d.name in settings else draw(d, self.random)))
        return Proposal(curriculum, tuple(sorted(values)))

    def first_open(self) -> Proposal | None:
        """Of a finite space the first proposal that is still open; nothing of an endless one."""
        return next(filter(self.known.open, self._rest), None)
