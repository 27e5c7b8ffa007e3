"""What the command line may say of a study."""

from __future__ import annotations

from typing import Any

import pytest
from study.damage import STUDY

from dermsearch.errors import UserError
from dermsearch.run.run import check
from dermsearch.search.space.space import Space
from dermsearch.study.load import load_study


def test_overrides_reach_every_depth() -> None:
    study = load_study(
        str(STUDY),
        [
            "train.epochs=7",
            "moco_v2.queue=512",
            "curriculum.tasks.odc.small=2",
            "search.seeds=[1, 2]",
            "published=null",
        ],
    )
    assert (study.train.epochs, study.search.seeds, study.published) == (7, (1, 2), None)
    assert study.curriculum.tasks["moco_v2"] == {"queue": 512}
    assert study.curriculum.tasks["odc"] == {"clusters": 16, "small": 2}
    assert study.curriculum.tasks["relative_location"] == {}


def test_an_override_reaches_into_a_list_of_tasks() -> None:
    study = load_study("curriculum.yaml", ["curriculum.tasks=[moco_v2, odc, relative_location]", "odc.small=3"])
    assert study.curriculum.tasks == {"moco_v2": {}, "odc": {"small": 3}, "relative_location": {}}


@pytest.mark.parametrize(
    ("override", "kind", "values"),
    [
        ("moco_v2.queue={choice: [128, 256]}", "choice", (128, 256)),
        ("odc.recompute={log: [1, 16]}", "log", (1, 16)),
        ("odc.recompute={range: [1, 16]}", "range", (1, 16)),
        ("relative_location.patch={range: [24, 32]}", "range", (24, 32)),
        ("moco_v2.lr={choice: [1e-3, 0.1]}", "choice", (0.001, 0.1)),
        ("moco_v2.lr={log: [1e-3, 1]}", "log", (0.001, 1.0)),
        ("odc.dropout={range: [0, 0.5]}", "range", (0.0, 0.5)),
        ("odc.optimizer={choice: [sgd, adamw]}", "choice", ("sgd", "adamw")),
    ],
)
def test_dimensions(override: str, kind: str, values: tuple[Any, ...]) -> None:
    space = check(load_study("curriculum.yaml", ["search.sampler=random", "search.trials=3", override]))
    [found] = space.dimensions
    assert (found.name, found.kind, found.values) == (override.split("=")[0], kind, values)
    assert [type(v) for v in found.values] == [type(v) for v in values]


def test_space_alone_refuses_what_its_tasks_refuse() -> None:
    with pytest.raises(UserError, match=r"curriculum\.tasks\.odc\.small: must be at least 1, not 0"):
        Space(load_study("curriculum.yaml", ["odc.small=0"]))
