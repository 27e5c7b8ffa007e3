"""Too few cases for what is asked of them are refused before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.run.check import check_enough, check_patience
from dermsearch.run.run import scarce
from dermsearch.search.space.checks import space_of

SPLITS = {"train": 100, "train:2": 6, "val": 12}
KINDS = np.repeat([0, 1, 2], [70, 24, 6])  # of the training cases
CASES = SimpleNamespace(
    split=lambda name: np.arange(SPLITS[name]),
    has=lambda modality: np.ones(200, bool),
    classes={"diagnosis": ("NEV", "MEL", "BCC")},
    label=lambda name: KINDS,
)


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


def test_labels_are_not_asked_of_classes_that_have_fewer_unless_one_has_them() -> None:
    """Those that have fewer give all, and every table says so."""
    for asked in (6, 7, 70, 71):
        study = make_study(downstream={"linear": {"labelled": [asked, "all", "50%"]}}, objective={"labelled": asked})
        (entry,) = study.entries.values()
        if asked == 71:
            with pytest.raises(UserError, match=r"^downstream\.linear\.labelled: must be at most 70, the .* not 71$"):
                check_enough(entry, CASES)
            continue
        check_enough(entry, CASES)
        told = {6: [], 7: ["1 class of diagnosis (BCC) with fewer than 7 training cases: all count"]}
        told[70] = ["2 classes of diagnosis (MEL, BCC) with fewer than 70 training cases: all count"]
        assert scarce(study, "data", CASES) == told[asked]
