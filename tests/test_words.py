"""Messages count: one of a thing is no plural."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest_search import make_study

from dermsearch.run.plan import Plan, labels, lines
from dermsearch.search.propose.replay_text import render
from dermsearch.search.tree.budget import Budget, limit
from dermsearch.study.config import Limits
from dermsearch.words import many


@pytest.mark.parametrize("count, told", [
    (1, "1 case"), (0, "0 cases"), (2, "2 cases"), (1.0, "1 case"), (0.5, "0.5 cases"), (1234, "1,234 cases"),
    (np.int64(1), "1 case"), (np.int64(1_000_000), "1,000,000 cases"), (1e6, "1e+06 cases"),
])  # fmt: skip
def test_many(count: float, told: str) -> None:
    assert many(count, "case") == told
    assert many(count, "curriculum", "curricula").endswith(" curriculum" if count == 1 else " curricula")


@pytest.mark.parametrize("name, one, two", [
    ("curricula", "1 curriculum", "2 curricula"), ("stages", "1 stage", "2 stages"), ("epochs", "1 epoch", "2 epochs"),
    ("hours", "1 hour", "2 hours"), ("gpu_hours", "1 GPU-hour", "2 GPU-hours"),
])  # fmt: skip
def test_limits_of_a_budget(name: str, one: str, two: str) -> None:
    assert (limit(name, 1), limit(name, 2)) == (one, two)
    budget = Budget(Limits(**{name: 1}))
    budget.ended = name
    assert budget.said() == one


@pytest.mark.parametrize("few, told", [
    (("1",), "1 label of every class"), (("5",), "5 labels of every class"),
    (("1", "all"), "1, all labels of every class"),
])  # fmt: skip
def test_labels(few: tuple[str, ...], told: str) -> None:
    assert labels(*few) == told


def test_a_plan_of_one_of_everything() -> None:
    study = make_study(
        curriculum={"tasks": {"odc": {"clusters": 4}}, "length": [1, 1]},
        train={"epochs": 3, "batch": 16, "precision": "fp32"},
        search={"budget": {"stages": 1, "hours": 1}, "pruner": "halving", "rungs": [1]},
        downstream={"linear": {"labelled": [1]}},
    )
    counted = ("proposals", "stages", "unshared", "passes", "unshared_passes", "looks", "cached", "judged")
    plan = Plan(study, 1, True, **dict.fromkeys(counted, 1))
    text = "\n".join(lines(plan))
    assert "1 training case" in text and "1 proposal," in text and "after 1 epoch and at" in text
    assert "1 stage, 1 hour" in text and "1 judgement more" in text and "1 of 1 stage" in text
    assert not re.findall(r"\b1 (?:[a-z-]+ )?(?!pass)[A-Za-z-]+s\b", text), text


def test_one_search_is_no_searches() -> None:
    class One:
        exhaustive, median, regret, high, stages, quantile = 1, 1.0, {}, 1.0, 1, 1.0

        def __getattr__(self, name: str) -> float:
            return 1.0

    table = render("t", {("a",): 0.5}, {("grid", True): One()}, 1)  # type: ignore[dict-item]
    assert "of 1 search;" in str(table.caption) and "the 1 stage of" in str(table.caption)
