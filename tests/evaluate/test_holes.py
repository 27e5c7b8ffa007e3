"""The control of holes on built-in patients: at chance where values lack by chance, far above where by class."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from dermsearch.data.domain import SKIN
from dermsearch.data.open import open_cases
from dermsearch.data.store.pool import Look
from dermsearch.evaluate import Features, Images, judge
from dermsearch.models.encoders import Encoders
from dermsearch.study.data import Data, People


def balanced(missing: str, features: str, folder: Path) -> tuple[float, float]:
    """Balanced accuracy of the diagnosis, and the upper end of its interval, from what is known of the tables alone."""
    data = Data(cases=700, size=32, drawn=People(missing=missing))  # type: ignore[arg-type]
    cases = open_cases(data, folder)
    train, heldout = cases.split("train"), np.concatenate([cases.split("val"), cases.split("test")])
    truth, groups = cases.label("diagnosis"), cases.groups()
    nothing = [np.zeros((len(rows), 1), np.float32) for rows in (train, heldout)]
    sides = {"diagnosis": truth[train]}, {"diagnosis": truth[heldout]}
    known = {"diagnosis": cases.classes["diagnosis"]}
    given = Features(*nothing, *sides, known, groups[heldout], "val", train_groups=groups[train])
    assert SKIN.tabled is not None
    names = tuple(c.name for c in SKIN.tabled.columns if c.level == "lesion")
    encoders = Encoders.random("test_resnet", ("derm",), "shared", 0)
    images = Images(encoders, cases, train, heldout, Look(32), torch.device("cpu"), nullcontext, names)
    told = judge(given, "linear", {"features": features, "c": 0.1}, images=images).rows
    row = next(r for r in told if (r["label"], r["metric"]) == ("diagnosis", "balanced_accuracy"))
    return row["value"], row["ci_low"]


@pytest.mark.slow
def test_holes_alone_tell_the_class_only_where_it_made_them(tmp_path: Path) -> None:
    chance, low = balanced("chance", "mask", tmp_path)
    assert low < 0.2 < 1.6 * chance < 0.5  # of five classes
    assert balanced("class", "mask", tmp_path)[1] > 0.4
    assert balanced("chance", "table", tmp_path)[0] > chance  # what is known tells more than that it is known
