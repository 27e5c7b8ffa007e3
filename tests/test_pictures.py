"""The README's pictures show the tables that lie beside them."""

from pathlib import Path

import pytest
from PIL import Image

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.board.settled import settled

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


def test_the_readme_tells_what_the_shipped_study_came_to() -> None:
    """Its leaderboard, row by row, as the tables of that run have it, and what it settles."""
    readme = (ROOT / "README.md").read_text()
    rows = leaderboard(FIRST)
    assert FIRST.study["name"] == "curriculum" and len(rows) == 5 and all(row.score is not None for row in rows)
    for row in rows:
        assert row.score is not None and row.low is not None and row.high is not None
        told = f"{100 * row.score:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        (line,) = [text for text in readme.splitlines() if f" {row.name} " in text and told in text]
        if row.to_none is not None:
            assert f" {100 * row.to_none.value:+.1f} ± {100 * (row.to_none.half or 0):.1f}" in line
    assert settled(rows).split(";")[0] in " ".join(readme.split())
