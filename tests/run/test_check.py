"""What can be known to be missing before anything starts is told by `plan` and by `run` alike."""

from __future__ import annotations

from typing import Any

import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.run.plan import make_plan
from dermsearch.search.propose.by_optuna import CMAES


def test_a_backbone_that_takes_one_size_is_refused_at_another() -> None:
    def asked(size: int) -> dict[str, Any]:
        return {"encoder": {"name": "mixer_s32_224"}, "data": {"size": size}}

    check(make_study(**asked(224)))
    with pytest.raises(UserError, match=r"^encoder\.name: 'mixer_s32_224' cannot see images of data\.size, 64 px: "):
        check(make_study(**asked(64)))


@pytest.mark.parametrize("look", [check, make_plan])
def test_a_samplers_package_that_is_missing(look: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CMAES, "package", "nowhere_to_be_found")
    with pytest.raises(UserError, match=r"^search\.sampler: needs the package nowhere_to_be_found"):
        look(make_study(search={"sampler": "cmaes", "trials": 4}))  # type: ignore[operator]
