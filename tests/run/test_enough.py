"""Too few cases for what is asked of them are refused before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.check import check_enough, check_patience
from dermsearch.search.space.checks import space_of

SPLITS = {"train": 100, "train:2": 6, "val": 12}
CASES = SimpleNamespace(split=lambda name: np.arange(SPLITS[name]), has=lambda modality: np.ones(200, bool))


@pytest.mark.parametrize(
    ("batch", "accumulate", "patience", "most"),
    [(12, 1, 3, None), (16, 1, 0, None), (24, 2, 3, None), (16, 1, 3, 12), (32, 2, 3, 24), (999, 1, 3, 12)],
)
def test_a_batch_of_validation_images_holds_none_twice(batch, accumulate, patience, most) -> None:
    train = {"batch": batch, "accumulate": accumulate, "patience": patience, "epochs": 4}
    study = make_study(train=train, curriculum={"tasks": {"simclr": {}}, "length": [1, 1]})
    space = space_of(study)
    if most is None:
        check_patience(study, space, CASES)
        return
    said = rf"curriculum\.tasks\.simclr\.batch: must be at most {most} with patience, which looks at 12 validation"
    with pytest.raises(UserError, match=said):
        check_patience(study, space, CASES)


def test_as_many_neighbours_as_there_are_labelled_cases() -> None:
    for told, wrong in (({"k": 6, "labelled": [2]}, ""), ({}, ""), ({"labelled": [2]}, "6"), ({"k": 101}, "100")):
        (entry,) = make_study(downstream={"knn": told}, objective={"protocol": "knn"}).entries.values()
        if not wrong:
            check_enough(entry, CASES)
            continue
        with pytest.raises(UserError, match=rf"downstream\.knn\.k: must be at most {wrong}, the labelled training"):
            check_enough(entry, CASES)
