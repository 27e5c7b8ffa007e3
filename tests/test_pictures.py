"""The README's pictures show the tables that lie beside them."""

from pathlib import Path

import pytest
from PIL import Image

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard

ROOT = Path(__file__).parents[1]
RESULTS = load(ROOT / "results" / "ham10000")
FIRST = load(ROOT / "results" / "first_run")


@pytest.mark.parametrize("name", ["curriculum", "tree"])
def test_a_picture_carries_the_origin_of_its_tables(name: str) -> None:
    with Image.open(ROOT / "docs" / f"{name}.png") as picture:
        assert picture.info["Source"] == RESULTS.origin, "`python docs/pictures.py` draws them again"
    assert f"docs/{name}.png" in (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_shipped_study() -> None:
    """All its curricula, with scores; and the README names the one that they have first."""
    rows = leaderboard(FIRST)
    assert len(rows) == 16 and all(row.score is not None for row in rows)
    assert FIRST.study["name"] == "curriculum"
