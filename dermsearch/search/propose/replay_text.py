"""What a replay found, as a table and as a CSV file of every number."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.table import Table

from dermsearch.curriculum import ARROW
from dermsearch.errors import UserError
from dermsearch.search.propose.replay import Cost
from dermsearch.search.propose.tables import Table as Scores
from dermsearch.words import many

Costs = Mapping[tuple[str, bool], Cost]  # by sampler, and whether stages are shared


def render(name: str, scores: Scores, costs: Costs, repeats: int) -> Table:
    """A row per sampler and way of counting: how many stages until the best of the scores is found."""
    first = next(iter(costs.values()))
    best = max(scores, key=lambda c: scores[c])
    title = f"{name}: stages until {ARROW.join(best)} is found, the best of {len(scores)} curricula"
    note = (
        f"median and 90th percentile of {many(repeats, 'search', 'searches')}; fewer: than the "
        f"{many(first.exhaustive, 'stage')} of every curriculum trained whole\n"
        "after: how far the best by then is from the best of all, mean over the searches, points"
    )
    shown = Table(title=title, caption=note, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("sampler", "stages", "median", "90 %", "fewer", *(f"after {n}" for n in first.regret)):
        shown.add_column(column, justify="left" if column in ("sampler", "stages") else "right", no_wrap=True)
    for (sampler, sharing), c in costs.items():
        fewer = f"{c.exhaustive / c.median:.1f} x"
        regrets = (f"{100 * r:.1f}" for r in c.regret.values())
        shown.add_row(sampler, "shared" if sharing else "alone", told(c.median), told(c.ninetieth), fewer, *regrets)
    return shown


def told(stages: float) -> str:
    """A number of stages; a search that ended without the best took endless ones."""
    return f"{stages:g}" if math.isfinite(stages) else "never"


def write_csv(path: Path, name: str, costs: Costs, repeats: int) -> None:
    """One row per number."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["table", "sampler", "sharing", "repeats", "measure", "stages", "value"])
            for (sampler, sharing), c in costs.items():
                head = [name, sampler, "yes" if sharing else "no", repeats]
                rows.writerow([*head, "found", "", c.found])
                rows.writerow([*head, "median", "", c.median])
                rows.writerow([*head, "ninetieth", "", c.ninetieth])
                rows.writerow([*head, "exhaustive", "", c.exhaustive])
                rows.writerows([*head, "regret", stages, value] for stages, value in c.regret.items())
    except OSError as error:
        raise UserError(f"--csv: '{path}' cannot be written to: {error.strerror}") from None
