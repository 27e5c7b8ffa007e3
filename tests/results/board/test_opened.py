"""Validation and test side by side, whatever became of the study after its test split was opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from results.board.test_leaderboard import with_table
from results.board.test_paired import kept, predicted

from dermsearch.results.board.opened import notes, opened
from dermsearch.results.tables.schema import Results


def open_for(results: Results, seeds: Sequence[int]) -> Results:
    """The test split was opened for one curriculum and no pre-training, in these seeds."""
    about = {"opening": 1, "when": "", "rule": "best on validation"}
    on_test = [row for row in results.scores.to_pylist() if row["split"] == "test" and row["seed"] in seeds]
    rows = [row | about for row in on_test if row["curriculum"] in ("odc", "no pre-training")]
    return with_table(results, "tests", rows)


def test_seeds_that_came_after_the_opening_hide_nothing_of_it(make_study: Callable[..., Results]) -> None:
    found = opened(open_for(make_study(longest=1, seeds=(0, 1, 2)), (0, 1)))
    assert found is not None
    assert [(each.test.name, each.test.seeds) for each in found.tested] == [
        ("odc", (0, 1)),
        ("no pre-training", (0, 1)),
    ]
    for each in found.tested:  # made 2 points lower in every seed
        assert each.change == pytest.approx(-0.02)
        assert each.test.score - each.validation.score != pytest.approx(-0.02) or not each.test.length
    assert notes(found)[1] == "Validation has further seeds, which were not tested: of odc, no pre-training."
    whole = opened(open_for(make_study(longest=1, seeds=(0, 1)), (0, 1)))
    assert whole is not None and len(notes(whole)) == 1


def test_luck_is_told_where_resamples_lack_a_class(make_study: Callable[..., Results]) -> None:
    results = make_study(longest=1)
    keys = [row["key"] for row in results.stages.to_pylist()]
    # The label is known of two patients: who draws neither has no score.
    said = {key: {(0, 0): {"diagnosis": predicted(i, unknown=76)}} for i, key in enumerate(keys)}
    found = opened(open_for(Results(results.folder, results.study, results.tables | {"predictions": kept(said)}), (0,)))
    assert found is not None and found.luck is not None and found.luck.curricula == 3
    assert all(map(math.isfinite, (found.luck.value, found.luck.low, found.luck.high)))
