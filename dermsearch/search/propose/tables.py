"""Tables of scores that are known already: what a search is replayed on, and what it may learn from beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError, nearest
from dermsearch.papers.published import IMAGENET, TABLES, published
from dermsearch.papers.sheet import need, read_sheet
from dermsearch.words import many

Table = Mapping[Curriculum, float]  # the score of each curriculum


def read_table(name: str) -> dict[Curriculum, float]:
    """A published table by its name, a CSV file with columns curriculum and score, or a study's results folder.

    Of a study, a curriculum's score is the mean over its seeds, with the best of its settings.
    """
    path = Path(name)
    if path.is_dir():
        from dermsearch.results import load
        from dermsearch.results.board.leaderboard import leaderboard

        scored = [(r.curriculum, r.score) for r in leaderboard(load(path)) if r.score is not None]
    elif path.suffix == ".csv":
        lines = read_sheet(path)
        need(lines, ("curriculum", "score"))
        scored = [(line.text("curriculum"), line.plain("score")) for line in lines]
    elif name in TABLES:
        scored = list(published(name).items())
    else:
        raise UserError(
            f"'{name}' is neither a results folder nor a CSV file nor a published table; {nearest(name, TABLES)}"
        )
    scores: dict[Curriculum, float] = {}
    for text, score in scored:
        curriculum = Curriculum.parse(text)
        if curriculum.tasks and text != IMAGENET:
            scores[curriculum] = max(score, scores.get(curriculum, -math.inf))
    if len(scores) < 2:
        raise UserError(
            f"{name}: has {many(len(scores), 'curriculum', 'curricula')} with a score; a search needs two at least"
        )
    return scores
