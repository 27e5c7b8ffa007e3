"""The README's pictures show the tables that lie beside them."""

from pathlib import Path

import pytest
from PIL import Image

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard

ROOT = Path(__file__).parents[1]
RESULTS = load(ROOT / "results" / "ham10000")
FIRST = load(ROOT / "results" / "first_run")


@pytest.mark.parametrize(
    ("name", "shown"), [("curriculum", "README.md"), ("tree", "README.md"), ("report", "docs/report.md")]
)
def test_a_picture_carries_the_origin_of_its_tables(name: str, shown: str) -> None:
    with Image.open(ROOT / "docs" / f"{name}.png") as picture:
        assert picture.info["Source"] == RESULTS.origin, "`python docs/pictures.py` draws them again"
    assert f"{name}.png)" in (ROOT / shown).read_text()


def test_the_tables_are_those_of_the_shipped_study() -> None:
    """All its curricula, with scores; and the README names the one that they have first."""
    rows = leaderboard(FIRST)
    assert len(rows) == 16 and all(row.score is not None for row in rows)
    assert FIRST.study["name"] == "curriculum"
