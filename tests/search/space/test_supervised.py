"""A task that reads labels comes last or not at all, whoever proposes, and reads no label that it must not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from conftest_search import Bench, make_study

from dermsearch.engines.inline import run_inline
from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.search.propose.encodings import Slots
from dermsearch.search.space.checks import space_of
from dermsearch.study.config import Study

READER = "joint_supervised"
TASKS: dict[str, dict[str, Any]] = {READER: {}, "relative_location": {}, "moco_v2": {"queue": 32}}


def study(**changes: Any) -> Study:
    """The reader of labels stands first in the list, and may not stand there in a curriculum."""
    return make_study(**{"curriculum__tasks": TASKS, **changes})


@pytest.mark.parametrize("repeats", [False, True])
def test_grid_holds_every_curriculum_in_which_it_comes_last_and_no_other(repeats: bool) -> None:
    found = [c.tasks for c in space_of(study(curriculum__repeats=repeats)).curricula()]
    every = [c for n in (1, 2, 3) for c in (itertools.product(TASKS, repeat=n))]
    wanted = [c for c in every if READER not in c[:-1] and (repeats or len(set(c)) == len(c))]
    assert len(found) == len(set(found)) and set(found) == set(wanted)
    assert any(c[-1] == READER and len(c) == 3 for c in found)


@pytest.mark.parametrize("repeats", [False, True])
def test_whatever_a_sampler_says_is_read_as_a_curriculum_of_the_space(repeats: bool, bench: Bench) -> None:
    space = bench.driver(study(search__sampler="tpe", search__trials=5, curriculum__repeats=repeats)).space
    found = set()
    for length, *slots in itertools.product((1, 2, 3), TASKS, TASKS, TASKS):
        said = {"length": length, **{f"slot_{i}": name for i, name in enumerate(slots)}}
        curriculum = Slots().read(space, said)
        assert len(curriculum) == length
        assert Slots().read(space, {"length": length, **Slots().write(space, curriculum)}) == curriculum
        found.add(curriculum)
    assert found == set(space.curricula())


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_stages_that_are_trained_end_with_it(sampler: str, bench: Bench) -> None:
    bench.score = lambda job: 0.1 + 0.1 * (READER in job.curriculum)  # labels help
    driver = bench.driver(study(search__sampler=sampler, search__trials=5 if sampler != "grid" else None))
    run_inline(driver, bench.work(driver))
    trained = [tuple(job.curriculum.split(" > ")) for job in bench.jobs if job.curriculum]
    assert trained and all(READER not in c[:-1] for c in trained)
    assert any(c[-1] == READER and len(c) > 1 for c in trained)


def test_lengths_that_none_can_have_are_refused() -> None:
    two = {READER: {}, "odc": {"clusters": 4}}
    space_of(study(curriculum__tasks=two, curriculum__length=[1, 2]))
    space_of(study(curriculum__tasks=two, curriculum__length=[1, 3], curriculum__repeats=True))
    message = r"curriculum.length: must be at most 1, not 2: what reads labels \(joint_supervised\) may only come last"
    with pytest.raises(UserError, match=message):
        alone = {"curriculum__tasks": {READER: {}}, "curriculum__repeats": True, "curriculum__length": [1, 2]}
        space_of(study(**alone))


def test_labels_that_are_not_for_training_are_not_read() -> None:
    check(study())
    with pytest.raises(UserError, match=r"curriculum.tasks.joint_supervised: goes with data.transductive: false only"):
        check(study(data__transductive=True))
    with pytest.raises(UserError, match=r"goes with labelled: all only, not 10%"):
        check(study(data__labelled="10%"))
    others = {"relative_location": {}, "odc": {"clusters": 4, "small": 5}}
    check(study(curriculum__tasks=others, curriculum__length=[1, 2], data__labelled="10%"))
