"""Several architectures in one study: each is trained by the tasks that can train it, and by no other."""

from typing import Any

import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.cost import prices

VIT, CNN = "vit_tiny_patch16_224", "resnet10t"
TASKS = {"ibot": {}, "colorme": {}, "rotation": {}}


def study_of(names: list[str] | str = [CNN, VIT], tasks: dict[str, Any] = TASKS, **search: Any) -> Any:  # noqa: B006
    name = {"choice": names} if isinstance(names, list) else names
    data = {"cases": 200, "size": 32}
    curriculum = {"tasks": tasks, "length": [1, min(2, len(tasks))]}
    return make_study(encoder={"name": name}, data=data, curriculum=curriculum, search=search)


def test_a_space_holds_what_can_be_trained() -> None:
    space = space_of(study_of())
    assert space.barred == {(CNN, "ibot"), (VIT, "colorme")}
    every = list(space.every())
    assert space.count() == len(every) == 2 * (2 + 2)  # each root two tasks alone, and both orders of them
    assert all(space.fits(proposal) for proposal in every)


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "curriculum_prior"])
def test_no_sampler_proposes_anything_else(sampler: str) -> None:
    space = space_of(study_of())
    proposer = Proposer(space, study_of(sampler=sampler, trials=40).search, None, prices(space))
    found = []
    while asked := proposer.ask():
        for each in asked:
            found.append(each.proposal)
            proposer.tell(each, [0.5 + 0.01 * len(found)] * len(each.proposal.curriculum))
    assert found and all(space.fits(proposal) for proposal in found)
    assert {(p.root, task) for p in found for task in p.curriculum} == {
        (CNN, "colorme"), (CNN, "rotation"), (VIT, "ibot"), (VIT, "rotation"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "tasks", "said"),
    [
        ([CNN, "resnet18"], {"ibot": {}, "rotation": {}}, "encoder.name: must be a vision transformer"),
        (CNN, {"ibot": {}, "rotation": {}}, "encoder.name: must be a vision transformer"),
        ([CNN, VIT], {"ibot": {}}, f"encoder.name: none of the tasks can train {CNN}"),
    ],
)
def test_what_cannot_be_trained_at_all_is_refused(names: Any, tasks: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(study_of(names, tasks))
