"""The search as an Optuna study, in a file that Optuna's own tools open."""

from __future__ import annotations

import json
import math
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from dermsearch.search.propose.encodings import Encoding
from dermsearch.search.space.dimensions import Dimension
from dermsearch.search.space.proposal import Choices, Proposal

SHARE = 20  # the file is written whole, so no oftener than takes one part in so many of the time


class Lines(BaseJournalBackend):
    """Optuna's journal in memory: one line of JSON per operation, as its file has them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[str] = []  # of the file: places behind a curriculum's end are no parameters of its trial
        self.lengths: list[float] = []  # of the curricula, by trial

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The operations from that number on."""
        return map(json.loads, self.lines[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Further operations."""
        for log in logs:
            self.lines.append(line_of(log))
            if log["op_code"] == JournalOperation.CREATE_TRIAL:
                self.lengths.append(log.get("params", {}).get("length", math.inf))
                told: dict[str, Any] = {n: self._used(log[n]) for n in ("params", "distributions") if n in log}
                self.shown.append(line_of({**log, **told}) if told else self.lines[-1])
            elif log["op_code"] != JournalOperation.SET_TRIAL_PARAM:
                self.shown.append(self.lines[-1])
            else:
                if log["param_name"] == "length":
                    self.lengths[log["trial_id"]] = log["param_value_internal"]
                if self._used({log["param_name"]: 0}, log["trial_id"]):
                    self.shown.append(self.lines[-1])

    def _used(self, params: dict[str, Any], trial: int = -1) -> dict[str, Any]:
        """Those that say something of a trial's curriculum."""
        places = {name: re.fullmatch(r"(?:slot|code)_(\d+)", name) for name in params}
        return {n: v for n, v in params.items() if (p := places[n]) is None or int(p[1]) < self.lengths[trial]}


def line_of(log: dict[str, Any]) -> str:
    """An operation as its file has it."""
    return json.dumps(log, separators=(",", ":"))


class Journal:
    """Every proposal and every prefix that has a score is a trial.

    The file is replaced whole. Two drivers of one study propose the same, so either one's file tells the same story.
    """

    def __init__(
        self,
        space: Choices,
        sampler: optuna.samplers.BaseSampler,
        encoding: Encoding,
        path: Path | None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.encoding, self.path, self.due = space, encoding, path, 0.0
        self.prunes = pruner is not None
        self.lines = Lines()
        self.study = optuna.create_study(
            study_name=space.name,
            storage=InMemoryStorage() if path is None else JournalStorage(self.lines),
            sampler=sampler,
            pruner=pruner or optuna.pruners.NopPruner(),
            direction="maximize",
        )
        order = {"length": IntDistribution(*space.length), **encoding.distributions(space)}
        self.order: dict[str, BaseDistribution] = order
        self.distributions = order | {d.name: distribution(d) for d in space.dimensions}
        self.trials: dict[Proposal, optuna.Trial] = {}  # that Optuna proposed and waits to hear of
        self.began: dict[Proposal, datetime] = {}  # when this run asked for it

    def ask(self) -> tuple[optuna.Trial, Proposal]:
        """What Optuna's sampler proposes."""
        trial = self.study.ask(self.order)
        curriculum = self.encoding.read(self.space, trial.params)
        values = [(d.name, suggest(trial, d)) for d in self.space.dimensions if d.of(curriculum)]
        return trial, Proposal(curriculum, tuple(sorted(values)))

    def begin(self, proposal: Proposal) -> None:
        """A proposal is under way: its trial says which. A pruner looks at trials, so there every one gets its own."""
        self.began[proposal] = datetime.now()
        if self.prunes and proposal not in self.trials:
            params = self._params(proposal)
            self.study.enqueue_trial(params)
            self.trials[proposal] = self.study.ask({name: self.distributions[name] for name in params})
        if proposal in self.trials:
            for name, text in about(proposal).items():
                self.trials[proposal].set_user_attr(name, text)

    def drop(self, trial: optuna.Trial | None, value: float | None) -> None:
        """Tell Optuna of a proposal that needs no stage: its score is known, or comes with another."""
        if trial is None:
            return
        trial.set_user_attr("duplicate", True)
        self._end(trial, value)

    def report(self, proposal: Proposal, values: dict[int, float]) -> None:
        """What has come out on the way, by step, for the pruner."""
        for step, value in values.items():
            self.trials[proposal].report(value, step)

    def should_prune(self, proposal: Proposal) -> bool:
        """Does the pruner see no use in going on?"""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of trials that have fewer steps
            return self.trials[proposal].should_prune()

    def tell(self, proposal: Proposal, scores: list[float | None], pruned: bool = False) -> None:
        """The scores of a proposal's stages, the last one its own."""
        trial = self.trials.pop(proposal, None)
        known = {depth: value for depth, value in enumerate(scores, start=1) if value is not None}
        if trial is None:
            self._add(proposal, scores[-1], known, {}, self.began[proposal])
            return
        if not self.prunes:  # it was told of all of them when they came out
            for depth, value in known.items():
                trial.report(value, step=depth)
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._end(trial, scores[-1])

    def observe(self, prefix: Proposal, of: Proposal, value: float, known: dict[int, float] | None = None) -> None:
        """A shorter curriculum that came out on the way, and perhaps what a pruner may compare others with."""
        self._add(prefix, value, known or {}, {"prefix": True}, self.began[of])

    def write(self, at_once: bool = False) -> None:
        """Bring the file up to date, if it is worth the while."""
        began = time.monotonic()
        if self.path is None or (began < self.due and not at_once):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.part")
        part.write_text("".join(line + "\n" for line in self.lines.shown))
        os.replace(part, self.path)
        now = time.monotonic()
        self.due = now + SHARE * (now - began)

    def _end(self, trial: optuna.Trial, value: float | None) -> None:
        if value is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, value)

    def _add(
        self,
        proposal: Proposal,
        value: float | None,
        known: dict[int, float],
        attributes: dict[str, Any],
        began: datetime,
    ) -> None:
        params = self._params(proposal)
        trial = optuna.trial.create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            params=params,
            distributions={n: self.distributions[n] for n in params},
            value=value,
            intermediate_values=known,
            user_attrs={**about(proposal), **attributes},
        )
        trial.datetime_start = began
        self.study.add_trial(trial)

    def _params(self, proposal: Proposal) -> dict[str, Any]:
        """A proposal in Optuna's terms."""
        order = {"length": len(proposal.curriculum), **self.encoding.write(self.space, proposal.curriculum)}
        return {**order, **proposal.settings}


def about(proposal: Proposal) -> dict[str, str]:
    """What a trial says of itself in words."""
    return {"curriculum": str(proposal.curriculum), "settings": json.dumps(proposal.settings)}


def distribution(d: Dimension) -> BaseDistribution:
    """A dimension in Optuna's terms."""
    if d.kind == "choice":
        return CategoricalDistribution(d.values)
    low, high = d.values
    kind = IntDistribution if d.integer else FloatDistribution
    return kind(low, high, log=d.kind == "log")


def suggest(trial: optuna.Trial, d: Dimension) -> Any:
    """A dimension's value in a trial."""
    if d.kind == "choice":
        return trial.suggest_categorical(d.name, d.values)
    if d.integer:
        return trial.suggest_int(d.name, *d.values, log=d.kind == "log")
    return trial.suggest_float(d.name, *d.values, log=d.kind == "log")
