"""Optuna's samplers by name, each as it is best used here."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, ClassVar

import optuna

from dermsearch.errors import UserError
from dermsearch.search.propose.encodings import Codes
from dermsearch.search.propose.sampler import PATIENCE, Sampler
from dermsearch.search.space.proposal import Proposal


class ByOptuna(Sampler):
    """Proposals of one of Optuna's samplers, without those that are known."""

    sampler: ClassVar[str]  # Optuna's class
    options: ClassVar[dict[str, Any]] = {}
    package: ClassVar[str] = ""  # that it needs and Optuna does not bring

    @classmethod
    def optuna(cls, seed: int) -> optuna.samplers.BaseSampler:
        """The sampler itself."""
        if cls.package and importlib.util.find_spec(cls.package) is None:
            raise UserError(f"search.sampler: needs the package {cls.package} (pip install {cls.package})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one is experimental, or how it would be used elsewhere
            made: optuna.samplers.BaseSampler = getattr(optuna.samplers, cls.sampler)(seed=seed, **cls.options)
        return made

    def propose(self) -> Proposal | None:
        """What Optuna draws; if that is all known, the first that is not."""
        for _ in range(PATIENCE):
            trial, proposal = self.journal.ask()
            if self.known.open(proposal):
                self.journal.trials[proposal] = trial
                return proposal
            self.journal.drop(trial, self.known.values.get(proposal))
        return self.first_open()


class TPE(ByOptuna):
    """A tree of Parzen estimators."""

    sampler = "TPESampler"


class GP(ByOptuna):
    """A Gaussian process."""

    sampler, options = "GPSampler", {"warn_independent_sampling": False}


class CMAES(ByOptuna):
    """Evolution of a normal distribution, which sees an order as numbers."""

    sampler, options, package = "CmaEsSampler", {"warn_independent_sampling": False}, "cmaes"
    encoding = Codes()


class NSGAII(ByOptuna):
    """A genetic algorithm."""

    sampler = "NSGAIISampler"


class NSGAIII(ByOptuna):
    """Another genetic algorithm."""

    sampler = "NSGAIIISampler"


class QMC(ByOptuna):
    """Points that fill the space evenly."""

    sampler, options = "QMCSampler", {"scramble": True, "warn_independent_sampling": False}
    encoding = Codes()
