"""Who proposes: a list from front to back, chance, or Optuna's samplers by name. See prior.py for one of our own."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.search.propose.encodings import Codes, Encoding, Slots
from dermsearch.search.propose.journal import Journal
from dermsearch.search.propose.known import Known
from dermsearch.search.space.dimensions import draw
from dermsearch.search.space.proposal import Choices, Proposal

PATIENCE = 20  # proposals in a row that are known already, after which the first unknown one is taken


class Sampler(Protocol):
    """Proposes what is open by the known; None once nothing is."""

    weighs_cost: bool  # does it look at what a proposal costs by itself?

    def batch(self) -> float:
        """How many proposals it may make before it should hear of them."""

    def propose(self) -> Proposal | None:
        """The next one."""


@dataclass(frozen=True)
class Kind:
    """One of Optuna's samplers, and how it is best used."""

    name: str  # of the class
    encoding: Encoding = field(default_factory=Slots)
    options: dict[str, Any] = field(default_factory=dict)
    package: str = ""  # that it needs and Optuna does not bring


KINDS = {
    "tpe": Kind("TPESampler"),
    "gp": Kind("GPSampler", options={"warn_independent_sampling": False}),
    "cmaes": Kind("CmaEsSampler", Codes(), options={"warn_independent_sampling": False}, package="cmaes"),
    "nsgaii": Kind("NSGAIISampler"),
    "nsgaiii": Kind("NSGAIIISampler"),
    "qmc": Kind("QMCSampler", Codes(), options={"scramble": True, "warn_independent_sampling": False}),
}
ROUTINE = Kind("RandomSampler")  # where a sampler of this house proposes, Optuna only keeps the journal


def optuna_sampler(kind: Kind, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler itself."""
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise UserError(f"search.sampler: needs the package {kind.package} (pip install {kind.package})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one is experimental, or how it would be used elsewhere
        found: optuna.samplers.BaseSampler = getattr(optuna.samplers, kind.name)(seed=seed, **kind.options)
    return found


class Listed:
    """Every proposal of a finite space, short curricula first, so that each costs one stage."""

    weighs_cost = True

    def __init__(self, space: Choices, known: Known) -> None:
        self.known, self.left = known, space.every()

    def batch(self) -> float:
        """The whole list."""
        return math.inf

    def propose(self) -> Proposal | None:
        """The next that is not known; behind a stage that failed too, so that tables show what was lost."""
        return next((p for p in self.left if p not in self.known.asked and not self.known.cut(p)), None)


class Drawn:
    """At random: a length, then task by task, then settings."""

    weighs_cost = False

    def __init__(self, space: Choices, known: Known, seed: int) -> None:
        self.space, self.known, self.random = space, known, np.random.default_rng(seed)
        self.rest = listed(space)

    def batch(self) -> float:
        """Scores teach it nothing."""
        return math.inf

    def propose(self) -> Proposal | None:
        """Draw until it is new; if that takes long, the first of the list that is."""
        for _ in range(PATIENCE):
            curriculum = Curriculum()
            for left in reversed(range(self.random.integers(self.space.length[0], self.space.length[1] + 1))):
                allowed = self.space.may_follow(curriculum, left=left)
                curriculum = curriculum.then(allowed[self.random.integers(len(allowed))])
            values = [(d.name, draw(d, self.random)) for d in self.space.dimensions if d.of(curriculum)]
            proposal = Proposal(curriculum, tuple(sorted(values)))
            if self.known.open(proposal):
                return proposal
        return next(filter(self.known.open, self.rest), None)


class ByOptuna:
    """Proposals of one of Optuna's samplers, without those that are known."""

    weighs_cost = False

    def __init__(self, space: Choices, known: Known, journal: Journal, together: int) -> None:
        self.space, self.known, self.journal, self.together = space, known, journal, together
        self.rest = listed(space)

    def batch(self) -> float:
        """A round."""
        return self.together

    def propose(self) -> Proposal | None:
        """What Optuna draws; if that is all known, the first that is not."""
        for _ in range(PATIENCE):
            trial, proposal = self.journal.ask()
            if self.known.open(proposal):
                self.journal.trials[proposal] = trial
                return proposal
            self.journal.drop(trial, self.known.values.get(proposal))
        return next(filter(self.known.open, self.rest), None)


def listed(space: Choices) -> Iterator[Proposal]:
    """All proposals of a finite space; nothing of an endless one."""
    return space.every() if all(d.kind == "choice" for d in space.dimensions) else iter(())
