"""The curriculum prior: what it believes at first, how it changes its mind, and how long it thinks."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pace import slowness

from dermsearch.curriculum import Curriculum
from dermsearch.search.propose.curriculum_prior import DYNAMIC, CurriculumPrior
from dermsearch.search.propose.known import stages
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.propose.replay import TableSpace
from dermsearch.search.propose.surrogate import Surrogate, expected_improvement
from dermsearch.search.space.dimensions import Dimension
from dermsearch.search.space.proposal import Proposal
from dermsearch.study.config import Search

ALONE = {"a": 60.0, "b": 64.0, "c": 70.0}


def prior_of(tasks: list[str], longest: int = 2, price: Any = None) -> CurriculumPrior:
    chains = (Curriculum(c) for n in range(1, longest + 1) for c in itertools.permutations(tasks, n))
    space = TableSpace(dict.fromkeys(chains, 0.0), tasks)
    return sampler_of(space, price)


def sampler_of(space: TableSpace, price: Any = None) -> CurriculumPrior:
    sampler = Proposer(space, Search(sampler="curriculum_prior", trials=1, lag=1), None, price).sampler
    assert isinstance(sampler, CurriculumPrior)
    return sampler


def tell(prior: CurriculumPrior, **scores: float) -> None:
    for name, value in scores.items():
        prior.known.tell(Proposal(Curriculum(tuple(name.split("_")))), value)


def ask(prior: CurriculumPrior) -> tuple[str, ...]:
    proposal = prior.propose()
    assert proposal is not None
    prior.known.ask(proposal)
    return proposal.curriculum.tasks


def test_tasks_alone_come_first_and_together() -> None:
    prior = prior_of(list(ALONE))
    assert prior.lag() == math.inf
    assert [ask(prior) for _ in range(3)] == [("a",), ("b",), ("c",)]
    assert prior.lag() == 1


def test_before_any_pair_is_known_the_two_best_tasks_are_paired() -> None:
    prior = prior_of(list(ALONE))
    for _ in ALONE:
        ask(prior)
    tell(prior, **ALONE)
    assert set(ask(prior)) == {"b", "c"}


def test_of_two_orders_that_promise_the_same_the_one_on_the_better_task_goes_first() -> None:
    for order in itertools.permutations(ALONE):
        prior = prior_of(list(order))
        first = [ask(prior) for _ in range(3)]
        assert set(first) == {("a",), ("b",), ("c",)}
        tell(prior, **ALONE)
        assert ask(prior) == ("c", "b")


def test_it_unlearns_that_good_tasks_should_come_last() -> None:
    """What is weak alone polishes best here: pairs that end with the strong tasks are worse than those that do not."""
    prior = prior_of(["a", "b", "c", "d"])
    alone = {"a": 60.0, "b": 62.0, "c": 66.0, "d": 68.0}
    for _ in alone:
        ask(prior)
    tell(prior, **alone, a_d=55.0, b_d=56.0, c_d=57.0, d_c=66.0, a_c=56.0, b_c=57.0, d_b=72.0)
    assert ask(prior) == ("d", "a")


def test_a_prefix_that_is_there_is_free() -> None:
    prior = prior_of(list(ALONE), 3)
    for _ in ALONE:
        ask(prior)
    tell(prior, **ALONE, a_b=71.0, b_c=71.0, c_b=71.0)
    levels = list(prior._levels())
    cost = {c.proposal.curriculum.tasks: c.cost for c in levels[2]}
    assert cost["a", "b", "c"] == 1 and cost["a", "c", "b"] == 2


def test_a_dear_task_waits_for_the_cheap_ones() -> None:
    found = []
    for dear in (1.0, 50.0):
        prior = prior_of(list(ALONE), price=lambda stage, dear=dear: dear if stage.curriculum.last == "c" else 1.0)
        for _ in ALONE:
            ask(prior)
        tell(prior, a=60.0, b=64.0, c=64.1)
        found.append([ask(prior)[-1] for _ in range(6)])
    assert found[1].index("c") > found[0].index("c")
    assert found[1][-2:] == ["c", "c"], "the stages with the dear task come last of all"


def test_settings_are_searched_where_they_pay() -> None:
    """The score falls with the distance of a rate from 0.1; later draws gather there."""
    prior = prior_of(["a", "b"])
    prior.space.dimensions.append(Dimension("a.lr", "log", (0.001, 10.0)))
    prior = sampler_of(prior.space)
    misses = []  # in powers of ten
    for _ in range(60):
        proposal = prior.propose()
        assert proposal is not None
        prior.known.ask(proposal)
        misses += [abs(np.log10(proposal.settings["a.lr"]) + 1)] if "a" in proposal.curriculum else []
        for stage in stages(proposal):
            miss = abs(np.log10(stage.settings["a.lr"]) + 1) if "a" in stage.curriculum else 1.0
            prior.known.tell(stage, 70.0 - 5 * miss**2 + len(stage.curriculum))
    assert np.mean(misses[-20:]) < 0.5, "by chance it would be 1"


def test_settings_that_were_tried_are_known_again_in_whatever_order_the_study_lists_them() -> None:
    prior = prior_of(["a", "b"])
    prior.space.dimensions += [Dimension("a.z", "log", (0.01, 1.0)), Dimension("a.b", "log", (0.01, 1.0))]
    prior = sampler_of(prior.space)
    ask(prior)
    *tried, new, latest = prior.draws["a"]
    for values in (*tried, latest):
        prior.known.tell(Proposal(Curriculum(("a",)), tuple(sorted(values))), 60.0)
    prior._fit()
    assert new in prior._options("a"), "of all that were drawn only this one is new"


def test_the_surrogate_is_a_bayesian_linear_model() -> None:
    """Against the textbook: the posterior mean solves the ridge problem around the prior mean."""
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=(200, 3)), np.array([0.8, 0.3, 0.2])
    y = x @ w + draw.normal(0, 0.3, 200)
    model = Surrogate(x, y, np.array([0.5, 0.5, 0.0]), np.zeros((0, 3)))
    assert model.weights == pytest.approx(w, abs=0.1)
    assert model.noise == pytest.approx(0.09, rel=0.3)
    sure, unsure = model.predict(np.array([[0.1, 0, 0], [30.0, 0, 0]]))[1]
    assert unsure > 3 * sure
    known = Surrogate(x, y, np.zeros(3), np.array([[30.0, 0, 0]]))
    assert known.predict(np.array([[30.0, 0, 0]]))[1][0] < unsure, "what will be known by and by is less uncertain"


def test_expected_improvement() -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    exact = expected_improvement(np.array([1.0]), np.array([4.0]), 1.5)[0]
    assert exact == pytest.approx(np.maximum(draws - 1.5, 0).mean(), rel=0.02)
    assert expected_improvement(np.array([-1e6]), np.array([1.0]), 0.0)[0] > 0, "never nothing: something must be best"


def test_a_proposal_among_ten_thousand_takes_no_longer_than_a_blink() -> None:
    """22 tasks in curricula of up to three: 9,724 stages. Bookkeeping alone is timed by random."""
    tasks = [f"t{i}" for i in range(22)]
    chains = {Curriculum(c): 0.0 for n in (1, 2, 3) for c in itertools.permutations(tasks, n)}
    space = TableSpace(chains, tasks)
    proposer = Proposer(space, Search(sampler="random", trials=2000), None)
    began = time.process_time()
    asked = proposer.ask()
    for one in asked:
        proposer.tell(one, [0.5] * len(one.proposal.curriculum))
    assert (time.process_time() - began) / len(asked) < 0.005 * slowness()
    prior = sampler_of(space)
    draw = np.random.default_rng(0)
    taken = []
    for _ in range(32):
        began = time.process_time()
        proposal = prior.propose()
        taken.append(time.process_time() - began)
        assert proposal is not None
        prior.known.ask(proposal)
        for stage in stages(proposal):
            prior.known.tell(stage, float(draw.normal()))
    assert np.median(taken[22:]) < 0.5 * slowness()
    print(f"prior: {np.median(taken[22:]) * 1000:.0f} ms")


def learning_from(path: Path, scores: dict[str, float], tasks: list[str]) -> CurriculumPrior:
    path.write_text("curriculum,score\n" + "".join(f"{c},{s}\n" for c, s in scores.items()))
    chains = (Curriculum(c) for n in (1, 2) for c in itertools.permutations(tasks, n))
    search = Search(sampler="curriculum_prior", trials=9, learn_from=[str(path)])
    found = Proposer(TableSpace(dict.fromkeys(chains, 0.0), tasks), search, None).sampler
    assert isinstance(found, CurriculumPrior)
    return found


# What is weak alone polishes best: here pairs that end with b, the weakest, are better than those that end with c.
POLISH = {"a": 60.0, "b": 58.0, "c": 62.0, "d": 61.0} | {
    "a > b": 70,
    "c > b": 71,
    "d > b": 70,
    "a > c": 61,
    "b > c": 60,
}


def test_other_tables_count_until_scores_come_out_otherwise(tmp_path: Path) -> None:
    tasks = {"a": 0.60, "b": 0.58, "c": 0.62}
    prior = learning_from(tmp_path / "other.csv", POLISH, [*tasks])
    alone = learning_from(tmp_path / "alone.csv", {"x": 1.0, "y": 2.0}, [*tasks])  # which has no steps

    def last() -> list[float]:
        """What it is worth to end with each task."""
        for each in (prior, alone):
            each._fit()
        return [float(w) for w in prior.model.weights[DYNAMIC : DYNAMIC + 3]]

    tell(prior, **tasks)
    tell(alone, **tasks)
    assert max(last()) == last()[1] > 0.1, "b, before any pair is known"
    for each in (prior, alone):
        tell(each, a_b=0.55, c_b=0.53, a_c=0.65, b_c=0.66)
    assert max(last()) == last()[2]
    assert prior.model.weights == pytest.approx(alone.model.weights), "as if there had been no table"


def test_a_table_in_other_units_says_the_same(tmp_path: Path) -> None:
    one = learning_from(tmp_path / "one.csv", POLISH, ["a", "b", "c"])
    two = learning_from(tmp_path / "two.csv", {c: 0.01 * s + 3 for c, s in POLISH.items()}, ["a", "b", "c"])
    for (x, y), (x2, y2) in zip(one.learnt, two.learnt, strict=True):
        assert x2 == pytest.approx(x) and y2 == pytest.approx(y)
    assert len(one.learnt) == 5, "a step from d counts too, though d is not searched"
