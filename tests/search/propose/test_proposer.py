"""What every sampler must keep to, told by scores that nothing was trained for."""

from __future__ import annotations

import importlib.util
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest_search import TASKS, make_study, scores_of

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.search.propose.known import Known, stages
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.propose.sampler import SAMPLERS
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.space import Space
from dermsearch.study.config import Search

QUICK = [s for s in SAMPLERS.names() if s != "gp"]  # which thinks for seconds; it has a test of its own
CHOICES = {"moco_v2": {"queue": 64, "temperature": {"choice": [0.1, 0.2]}}, "odc": {"clusters": {"choice": [4, 8]}}}
RANGES = {"moco_v2": {"queue": 64, "lr": {"log": [0.01, 1.0]}}, "odc": {"clusters": {"range": [4, 12]}}}
READER = {"moco_v2": {"queue": 64}, "joint_supervised": {"label": "diagnosis"}, "odc": {"clusters": 4}}
CURRICULA: dict[str, dict[str, Any]] = {
    "any order": {"tasks": TASKS, "length": [1, 3]},
    "no singles": {"tasks": TASKS, "length": [2, 3]},
    "listed": {"tasks": TASKS, "length": [1, 3], "order": "listed"},
    "repeats": {"tasks": TASKS, "length": [1, 2], "repeats": True},
    "a reader last": {"tasks": READER, "length": [1, 3]},
    "choices": {"tasks": CHOICES, "length": [1, 2]},
}
SPACES = {name: space_of(make_study(curriculum=curriculum)) for name, curriculum in CURRICULA.items()}


def score(stage: Proposal) -> float:
    """A number that only the stage decides."""
    return zlib.crc32(repr((stage.curriculum.tasks, stage.values)).encode()) / 2**32


def proposer_of(space: Space, sampler: str, journal: Path | None = None, **search: Any) -> Proposer:
    search = {"sampler": sampler, "trials": 300, "lag": 3, **search}
    return Proposer(space, Search.model_validate(search), journal)


def drive(proposer: Proposer, fails: Any = lambda stage: False) -> list[list[Proposal]]:
    """Run a search to its end; returns what it asked for each time, all that was under way being told."""
    rounds = []
    while asked_now := proposer.ask():
        rounds.append([asked.proposal for asked in asked_now])
        for asked in asked_now:
            values: list[float | None] = []
            for stage in stages(asked.proposal):
                lost = fails(stage) or (bool(values) and values[-1] is None)
                values.append(None if lost else score(stage))
            proposer.tell(asked, values)
    proposer.end()
    return rounds


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampler", QUICK)
def test_a_sampler_proposes_what_is_allowed_once_and_comes_to_all_of_it(sampler: str, name: str) -> None:
    space = SPACES[name]
    rounds = drive(proposer := proposer_of(space, sampler))
    proposed = [p for found in rounds for p in found]
    everything = set(space.every())
    assert set(proposed) <= everything and len(set(proposed)) == len(proposed)
    assert scores_of(proposer) == {p: score(p) for p in everything}, "what was not proposed came out on another's way"
    if name == "choices":
        assert rounds == drive(proposer_of(space, sampler)), "the same study proposes the same"


@pytest.mark.parametrize("sampler", QUICK)
def test_nothing_is_built_on_a_stage_that_failed(sampler: str) -> None:
    space = SPACES["any order"]
    lost = Curriculum(("odc", "moco_v2"))
    proposer = proposer_of(space, sampler)
    rounds = drive(proposer, lambda stage: stage.curriculum == lost)
    left = {c for c in space.curricula() if c.prefix(2) != lost}
    assert {p.curriculum for p in scores_of(proposer)} == left
    told = False
    for found in rounds:
        if sampler != "grid":  # which lists everything at once
            assert not told or not any(p.curriculum.prefix(2) == lost for p in found)
        told = told or any(p.curriculum.prefix(2) == lost for p in found)


@pytest.mark.parametrize("sampler", [s for s in QUICK if s != "grid"])
def test_ranges_are_kept_and_never_end(sampler: str) -> None:
    space = space_of(make_study(curriculum={"tasks": RANGES, "length": [1, 2]}, search={"sampler": "tpe", "trials": 9}))
    proposed = [p for found in drive(proposer_of(space, sampler, trials=24)) for p in found]
    assert len(set(proposed)) == 24
    for p in proposed:
        assert set(p.settings) == {{"moco_v2": "moco_v2.lr", "odc": "odc.clusters"}[task] for task in p.curriculum}
        assert 0.01 <= p.settings.get("moco_v2.lr", 0.5) <= 1
        clusters = p.settings.get("odc.clusters", 4)
        assert type(clusters) is int and 4 <= clusters <= 12
    assert len({p.settings.get("moco_v2.lr") for p in proposed}) > 5


def test_a_gaussian_process_proposes_what_is_allowed_once() -> None:
    space = SPACES["repeats"]
    proposed = [p for found in drive(proposer_of(space, "gp", trials=8, candidates=1, lag=8)) for p in found]
    assert 0 < len(set(proposed)) == len(proposed) <= 8 and set(proposed) <= set(space.every())


def test_other_seeds_propose_otherwise() -> None:
    drawn = space_of(make_study(curriculum={"tasks": RANGES, "length": [1, 2]}, search={"sampler": "tpe", "trials": 9}))
    for sampler, space in (("random", SPACES["any order"]), ("curriculum_prior", drawn)):
        found = [drive(proposer_of(space, sampler, sampler_seed=seed, trials=8)) for seed in range(4)]
        assert any(other != found[0] for other in found[1:]), sampler


def test_the_cheapest_candidate_goes_first_and_the_others_are_kept() -> None:
    space = SPACES["any order"]

    def prices(candidates: int) -> list[float]:
        proposer = proposer_of(space, "random", candidates=candidates, trials=5)
        known = Known()
        found = []
        for asked in proposer.ask():
            found.append(known.cost(asked.proposal))
            known.ask(asked.proposal)
        return found

    assert all(price == 1 for price in prices(100)), "with all to choose from, every proposal adds one stage"
    assert max(prices(1)) > 1
    proposer = proposer_of(space, "tpe", candidates=6, trials=6, lag=1)
    first = proposer.ask()
    waiting = list(proposer.known.waiting)
    assert len(first) == 1 and len(waiting) == 5
    proposer.tell(first[0], [score(s) for s in stages(first[0].proposal)])
    second = proposer.ask()[0].proposal
    assert second in waiting, "what waited is as cheap as anything new, and came before it"


def test_what_waits_for_its_turn_is_not_proposed_again_when_little_is_left() -> None:
    """The sampler draws what is known by now, takes the first of the list that is not, and then draws that one."""
    for seed in range(12):
        proposer = proposer_of(SPACES["no singles"], "tpe", candidates=4, lag=2, pruner="median", sampler_seed=seed)
        while asked_now := proposer.ask():
            assert len(set(proposer.known.waiting)) == len(proposer.known.waiting)
            for asked in asked_now:
                values = [score(stage) for stage in stages(asked.proposal)]
                for depth, value in enumerate(values, start=1):
                    proposer.report(asked, depth, None, [value])
                proposer.tell(asked, values)  # type: ignore[arg-type]
        told = [t.user_attrs["curriculum"] for t in proposer.journal.study.trials if "curriculum" in t.user_attrs]
        assert len(set(told)) == len(told)


def test_a_price_decides_what_is_cheap() -> None:
    space = SPACES["any order"]
    search = Search(sampler="random", trials=3, candidates=100)
    proposer = Proposer(space, search, None, price=lambda stage: 10.0 if stage.curriculum.last == "odc" else 1.0)
    assert not any("odc" in asked.proposal.curriculum for asked in proposer.ask())


def test_two_proposers_may_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    one, two = (proposer_of(SPACES["any order"], "tpe", path, trials=6) for _ in range(2))
    rounds = drive(one)
    assert drive(two) == rounds
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="test", storage=optuna.storages.JournalStorage(backend))
    told = {t.user_attrs["curriculum"]: t.value for t in study.trials if "curriculum" in t.user_attrs}
    assert told == {str(p.curriculum): value for p, value in scores_of(one).items()}
    assert all(json.loads(t.user_attrs["settings"]) == {} for t in study.trials if "settings" in t.user_attrs)
    assert [p.name for p in tmp_path.iterdir()] == ["optuna.journal"]


def test_a_sampler_that_needs_a_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"search\.sampler: needs the package cmaes"):
        proposer_of(SPACES["any order"], "cmaes")


def test_draws_are_spread_over_lengths_and_tasks() -> None:
    first = [
        proposer_of(SPACES["any order"], "random", sampler_seed=s, candidates=1).ask()[0].proposal for s in range(300)
    ]
    lengths = np.bincount([len(p.curriculum) for p in first])[1:]
    assert (lengths > 70).all(), "a third each"


@pytest.mark.parametrize("sampler, pruner", [("tpe", "none"), ("qmc", "none"), ("random", "none"), ("tpe", "median")])
def test_who_reads_the_journal_sees_no_task_where_a_curriculum_has_none(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    """Optuna's dashboard showed three tasks of every curriculum of one; the sampler goes on with all places."""
    path = tmp_path / "optuna.journal"
    proposer = proposer_of(SPACES["any order"], sampler, path, pruner=pruner, trials=8)
    drive(proposer)
    proposer.end()
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    read = optuna.load_study(study_name="test", storage=optuna.storages.JournalStorage(backend)).trials
    assert len(read) == len(proposer.journal.study.trials) >= 8
    for trial, whole in zip(read, proposer.journal.study.trials, strict=True):
        length = trial.params["length"]
        places = [name for name in trial.params if name.startswith(("slot_", "code_"))]
        assert len(places) == length and len(whole.params) >= 4
        if "curriculum" in trial.user_attrs:  # of others it was known what they come to
            assert len(Curriculum.parse(trial.user_attrs["curriculum"])) == length
        assert (trial.value, trial.state) == (whole.value, whole.state)
    assert {trial.params["length"] for trial in read} == {1, 2, 3}


@pytest.mark.parametrize("sampler", ["grid", "random", "curriculum_prior", "tpe"])
def test_the_journal_tells_how_long_a_proposal_was_under_way(tmp_path: Path, sampler: str) -> None:
    """Optuna's dashboard showed every trial at one instant."""
    proposer = proposer_of(SPACES["any order"], sampler, tmp_path / "optuna.journal", trials=4)
    while asked_now := proposer.ask():
        time.sleep(0.02)
        for asked in asked_now:
            proposer.tell(asked, [score(stage) for stage in stages(asked.proposal)])
    trials = [
        trial
        for trial in proposer.journal.study.trials
        if "duplicate" not in trial.user_attrs and trial.state.is_finished()
    ]
    assert len(trials) >= 4
    for trial in trials:
        assert trial.duration is not None and trial.duration.total_seconds() > 0.015  # two clocks need not agree
