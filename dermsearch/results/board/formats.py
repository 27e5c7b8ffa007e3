"""The leaderboard for other programs and papers: CSV, Markdown, LaTeX and JSON, with what is known of its measure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from dermsearch.curriculum import ARROW
from dermsearch.results.board.about import About
from dermsearch.results.board.leaderboard import cells, footnotes, summary
from dermsearch.results.board.row import Row
from dermsearch.results.latex import escape

COLUMNS = ("rank", "curriculum", "order", "score", "low", "high", "to_none", "to_none_half", "to_single",
           "to_single_half", "seeds", "draws", "status")  # fmt: skip
HEADINGS = ("#", "curriculum", "order", "score, % [95 %]", "Δ no pre-training", "Δ best task alone", "seeds")


def as_csv(rows: Sequence[Row], known: About | None = None) -> str:
    """Every number in percent points with all its digits, a row for each curriculum."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        gaps = [(gap.value, gap.half) if gap else (None, None) for gap in (row.to_none, row.to_single)]
        numbers = [row.score, row.low, row.high, *gaps[0], *gaps[1]]
        shown = ["" if n is None else f"{100 * n:.4f}" for n in numbers]
        writer.writerow([row.rank or "", row.name, row.order, *shown, len(row.seeds), row.draws, row.status])
    return out.getvalue()


def as_markdown(rows: Sequence[Row], known: About | None = None) -> str:
    """A table with its notes below it."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|---:|---:|---:|---|"]
    for row in cells(list(rows)):
        own = (cell.replace("\n", "<br>").replace("|", r"\|") for cell in row)
        lines.append(f"| {' | '.join(own)} |")
    return "\n\n".join(["\n".join(lines), *footnotes(list(rows), known)]) + "\n"


def as_latex(rows: Sequence[Row], known: About | None = None) -> str:
    """A table for booktabs, with the footnotes as comments."""
    notes = [f"% {note}" for note in footnotes(list(rows), known)]
    texts = [[cell.replace(ARROW, " → ").replace("\n  ", "; ") for cell in row] for row in cells(list(rows))]
    body, head = ([" & ".join(map(escape, row)) + r" \\" for row in part] for part in (texts, [HEADINGS]))
    start, end = [r"\begin{tabular}{rllrrrr}", r"\toprule"], [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([*notes, *start, *head, r"\midrule", *body, *end])


def as_json(rows: Sequence[Row], known: About | None = None) -> str:
    """All that is known of each row."""
    about = {"about": asdict(known)} if known else {}
    return json.dumps({**summary(list(rows)), **about}, indent=2, default=str) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Row], About | None], str]] = {
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
    "json": as_json,
}
