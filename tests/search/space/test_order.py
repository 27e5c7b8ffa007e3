"""The order of tasks: what a curriculum may be, told the same by the list, the count and the step-by-step question."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from conftest_search import TASKS, Bench, make_study, scores_of

from dermsearch.curriculum import Curriculum
from dermsearch.engines.inline import run_inline
from dermsearch.errors import UserError
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.space import Space
from dermsearch.study import config

READER = {"joint_supervised": {"label": "diagnosis"}}
SETS: dict[str, dict[str, Any]] = {
    "three tasks": TASKS,
    "a reader last": {**TASKS, **READER},
    "a reader first": {**READER, **TASKS},
    "a reader between": {"moco_v2": {"queue": 64}, **READER, "odc": {"clusters": 4}},
}


def space(tasks: dict[str, Any], order: str, repeats: bool = False, length: tuple[int, int] = (1, 2)) -> Space:
    curriculum = {"tasks": tasks, "order": order, "repeats": repeats, "length": list(length)}
    return space_of(make_study(curriculum=curriculum))


def allowed(chain: tuple[str, ...], tasks: list[str], order: str, repeats: bool) -> bool:
    """The rules, said plainly."""
    places = [tasks.index(name) for name in chain]
    listed = all(b > a or (repeats and a == b) for a, b in itertools.pairwise(places))
    return (
        (repeats or len(set(chain)) == len(chain))
        and (order == "any" or listed)
        and not any(name in READER for name in chain[:-1])
    )


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("order", ["any", "listed"])
@pytest.mark.parametrize("name", SETS)
def test_list_count_and_question_agree_with_the_rules(name: str, order: str, repeats: bool) -> None:
    tasks = list(SETS[name])
    found = space(SETS[name], order, repeats)
    for longest in (2, 3):
        expected = {
            chain
            for length in range(1, longest + 1)
            for chain in itertools.product(tasks, repeat=length)
            if allowed(chain, tasks, order, repeats)
        }
        room = max(map(len, expected))
        if not repeats:
            assert min(found.room(Curriculum()), longest) == room
        if room < longest:
            with pytest.raises(UserError, match=r"curriculum\.length: must be at most 2, not 3"):
                space(SETS[name], order, repeats, (1, longest))
            continue
        found = space(SETS[name], order, repeats, (1, longest))
        chains = [c.tasks for c in found.curricula()]
        assert set(chains) == expected and len(chains) == len(expected) == found.count()
        assert set(walked(found, longest)) == expected


def walked(space: Space, longest: int) -> list[tuple[str, ...]]:
    """Every chain that asking `may_follow` slot by slot can come to; it never comes to a dead end."""
    found = []
    for length in range(1, longest + 1):
        chains = [Curriculum()]
        for slot in range(length):
            follow = {chain: space.may_follow(chain, left=length - 1 - slot) for chain in chains}
            assert all(follow.values()), "a dead end"
            chains = [chain.then(name) for chain, names in follow.items() for name in names]
        found += [chain.tasks for chain in chains]
    return found


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
@pytest.mark.parametrize(("length", "number"), [([1, 3], 7), ([2, 2], 3), ([3, 3], 1)])
def test_every_sampler_proposes_the_listed_order_alone_and_all_of_it(
    sampler: str, length: list[int], number: int, bench: Bench
) -> None:
    search = {"sampler": sampler, "trials": 30, "lag": 2}
    driver = bench.driver(make_study(curriculum={"tasks": TASKS, "order": "listed", "length": length}, search=search))
    run_inline(driver, bench.work(driver))
    proposed = [tuple(trial["curriculum"].split(" > ")) for trial in driver.window.trials]
    tasks = list(TASKS)
    assert all(list(chain) == sorted(chain, key=tasks.index) for chain in proposed)
    known = {p.curriculum for p, value in scores_of(bench.proposer).items() if value is not None}
    assert known == set(driver.space.curricula()) and len(known) == number
    assert all(t["status"] == "done" for t in driver.window.trials)


def test_the_order_is_in_no_key(bench: Bench) -> None:
    keys = {}
    for order in ("any", "listed"):
        driver = bench.driver(make_study(curriculum={"tasks": TASKS, "order": order, "length": [1, 2]}))
        run_inline(driver, bench.work(driver))
        keys[order] = {str(n.curriculum): n.key for n in driver.tree.stages()}
    assert len(keys["listed"]) == 6 and keys["listed"].items() <= keys["any"].items()


def test_a_misspelt_order(bench: Bench) -> None:
    from pydantic import ValidationError

    from dermsearch.study.wording import problem

    with pytest.raises(ValidationError) as error:
        make_study(curriculum={"tasks": TASKS, "order": "lsted"})
    assert problem(dict(error.value.errors()[0])) == (
        "curriculum.order",
        "must be one of any, listed, not 'lsted'; did you mean 'listed'?",
    )


def test_a_space_needs_no_study() -> None:
    rules = config.Curricula.model_validate(
        {"tasks": {"rotation": {"lr": {"choice": [0.1, 0.2]}}, "odc": {}}, "length": [2, 2]}
    )
    own = Space(rules, config.Train(epochs=3))
    assert own.count() == len(list(own.every())) == 4
    assert own.settings("rotation", {"rotation.lr": 0.2})["train"]["epochs"] == 3
