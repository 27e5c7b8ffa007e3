"""A store that a study names twice, to judge in two ways, is no second data set that shares images with the first."""

from pathlib import Path

from conftest_search import make_study

from dermsearch.data.open import open_cases
from dermsearch.run.run import overlaps


def test_only_another_store_is_compared(tmp_path: Path) -> None:
    one = {"cases": 40, "size": 32}
    data = {"image": one, "full": one, "other": {"cases": 41, "size": 32}}  # the same cases and one more
    study = make_study(
        data=data, downstream={f"linear@{name}": {} for name in data}, objective__protocol="linear@image"
    )
    said = overlaps(study, {name: open_cases(each, tmp_path) for name, each in study.sets.items()})
    assert len(said) == 1 and "images of image also stand in other" in said[0]
