"""The brain: Optuna, asked for whole curricula and told what they and their prefixes are worth.

Proposals are asked for in rounds and told in order once the whole round is judged, so what is proposed depends
on the study and its scores alone, never on which stage happened to finish first. A run that was interrupted asks
again from the start and finds the answers in the stage store.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import optuna.storages.journal
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from dermsearch.config import Search
from dermsearch.search.space import Dimension, Proposal, Space

SAMPLERS = {
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # every proposal is enqueued; nothing is sampled
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
}
PATIENCE = 200  # duplicates in a row after which a space counts as exhausted


@dataclass
class Asked:
    """A proposal under way."""

    number: int
    proposal: Proposal
    trial: optuna.Trial


class Brain:
    """Asks and tells; remembers every proposal's value so that none is trained for twice."""

    def __init__(self, space: Space, search: Search, journal: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.search = space, search
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        self.study = optuna.create_study(
            study_name=space.study.name,
            storage=optuna.storages.JournalStorage(backend),
            sampler=SAMPLERS[search.sampler](search.sampler_seed),
            direction="maximize",
        )
        self.grid = space.every() if search.sampler == "grid" else None
        self.budget = search.trials
        self.asked = 0
        self.known: dict[Proposal, float | None] = {}  # told, or under way (None)
        self.distributions = self._distributions()

    def ask(self) -> list[Asked]:
        """The next round; empty when the budget or the space is used up."""
        left = None if self.budget is None else self.budget - self.asked
        size = self.search.round if self.search.sampler == "tpe" else None
        limits = [n for n in (left, size) if n is not None]
        if self.grid is not None:
            found = [self._enqueue(p) for p in itertools.islice(self.grid, min(limits, default=None))]
        else:
            found = []
            while len(found) < min(limits):
                fresh = self._sample()
                if fresh is None:
                    break
                found.append(fresh)
        self.asked += len(found)
        return found

    def tell(self, asked: Asked, prefixes: list[float | None]) -> None:
        """The scores of the proposal's prefixes, the last one its own; None where a stage failed."""
        for depth, value in enumerate(prefixes, start=1):
            if value is not None:
                asked.trial.report(value, step=depth)
        value = prefixes[-1]
        if value is None:
            self.study.tell(asked.trial, state=TrialState.FAIL)
        else:
            self.study.tell(asked.trial, value)
        self.known[asked.proposal] = value
        for depth, value in enumerate(prefixes[:-1], start=1):
            self._observe(asked.proposal.prefix(depth), value)

    def _observe(self, proposal: Proposal, value: float | None) -> None:
        """A shorter curriculum that came out on the way is an observation of its own."""
        shortest = self.space.study.curriculum.length[0]
        if value is None or proposal in self.known or len(proposal.curriculum) < shortest:
            return
        params = self._params(proposal)
        self.study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={n: self.distributions[n] for n in params},
                value=value,
                user_attrs={**self._about(proposal), "prefix": True},
            )
        )
        self.known[proposal] = value

    def _enqueue(self, proposal: Proposal) -> Asked:
        self.study.enqueue_trial(self._params(proposal))
        trial = self.study.ask()
        found = self._read(trial)
        assert found == proposal
        return self._start(trial, found)

    def _sample(self) -> Asked | None:
        for _ in range(PATIENCE):
            trial = self.study.ask()
            proposal = self._read(trial)
            if proposal not in self.known:
                return self._start(trial, proposal)
            value = self.known[proposal]  # asked before: the answer is known, or comes with the round
            trial.set_user_attr("duplicate", True)
            if value is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, value)
        return None

    def _start(self, trial: optuna.Trial, proposal: Proposal) -> Asked:
        for name, text in self._about(proposal).items():
            trial.set_user_attr(name, text)
        self.known[proposal] = None
        return Asked(trial.number, proposal, trial)

    def _read(self, trial: optuna.Trial) -> Proposal:
        """A proposal from a trial's parameters; a task that may not come here becomes the next one that may."""
        tasks = list(self.space.tasks)
        shortest, longest = self.space.study.curriculum.length
        length = trial.suggest_int("length", shortest, longest)
        curriculum: list[str] = []
        for i in range(longest):
            name = trial.suggest_categorical(f"slot_{i}", tasks)
            if i >= length:
                continue
            allowed = self.space.may_follow(curriculum, left=length - 1 - i)
            at = tasks.index(name)
            curriculum.append(next(t for t in tasks[at:] + tasks[:at] if t in allowed))
        values = [(d.name, self._suggest(trial, d)) for d in self.space.dimensions if d.task in curriculum]
        return Proposal(tuple(curriculum), tuple(sorted(values)))

    def _suggest(self, trial: optuna.Trial, d: Dimension) -> Any:
        if d.kind == "choice":
            return trial.suggest_categorical(d.name, d.values)
        if d.integer:
            return trial.suggest_int(d.name, *d.values, log=d.kind == "log")
        return trial.suggest_float(d.name, *d.values, log=d.kind == "log")

    def _params(self, proposal: Proposal) -> dict[str, Any]:
        """The parameters that `_read` turns into this proposal; slots behind its end keep the first task."""
        tasks, longest = list(self.space.tasks), self.space.study.curriculum.length[1]
        slots = list(proposal.curriculum) + [tasks[0]] * (longest - len(proposal.curriculum))
        return {
            "length": len(proposal.curriculum),
            **{f"slot_{i}": name for i, name in enumerate(slots)},
            **proposal.settings,
        }

    def _distributions(self) -> dict[str, BaseDistribution]:
        shortest, longest = self.space.study.curriculum.length
        found: dict[str, BaseDistribution] = {"length": IntDistribution(shortest, longest)}
        for i in range(longest):
            found[f"slot_{i}"] = CategoricalDistribution(list(self.space.tasks))
        for d in self.space.dimensions:
            if d.kind == "choice":
                found[d.name] = CategoricalDistribution(d.values)
            else:
                low, high = d.values
                kind = IntDistribution if d.integer else FloatDistribution
                found[d.name] = kind(low, high, log=d.kind == "log")
        return found

    @staticmethod
    def _about(proposal: Proposal) -> dict[str, str]:
        return {"curriculum": " > ".join(proposal.curriculum), "settings": json.dumps(proposal.settings)}
