"""`dermsearch replay`: what a search would have cost, told by a table of scores that are known already."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermsearch.errors import UserError, nearest

if TYPE_CHECKING:
    from dermsearch.search.propose.replay import Cost, Replayed

WIDTH = 110  # of what is not a terminal


def replay(
    table: Annotated[
        str,
        typer.Argument(
            help="A published table (aiseeme_table1), a study's results folder, or a CSV file with the columns "
            "curriculum (as 'odc > moco_v2') and score."
        ),
    ],
    sampler: Annotated[
        list[str] | None, typer.Option(help="A sampler, or several by repeating the option. Default: four of them.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, max=100_000, help="Searches, each with a seed and an order of tasks of its own.")
    ] = 200,
    together: Annotated[
        int, typer.Option("--round", min=1, max=1000, help="Proposals before scores are told; 1: one after the other.")
    ] = 1,
    out: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every number to this file.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", "-o", metavar="FILE", help="Draw it, as PNG and SVG, and as PDF if FILE ends so."),
    ] = None,
) -> None:
    """Search a table of known scores without training, again and again: how many stages until its best is found?

    A stage counts once, however many curricula begin with it; 'without sharing' every proposal trains all of its
    stages. Only curricula that the table has are proposed. Regret is how far the best so far is from the best.
    """

    from dermsearch.search.propose.sampler import SAMPLERS
    from dermsearch.study.config import Search

    names = sampler or ["grid", "random", "tpe", "curriculum_prior"]
    for name in names:
        if name not in SAMPLERS:
            raise UserError(f"--sampler: '{name}' is not a sampler; {nearest(name, SAMPLERS.names())}")
    from rich import box
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from dermsearch.search.propose.replay import cost, read_table
    from dermsearch.search.propose.replay import replay as search

    scores = read_table(table)
    runs: dict[tuple[str, bool], list[Replayed]] = {}
    aside = Console(stderr=True)
    for name in names:
        settings = Search.model_validate({"sampler": name, "trials": len(scores), "round": together})
        for sharing in (True, False):
            seeds = track(
                range(repeats),
                f"{name}, {'shared' if sharing else 'alone'}",
                console=aside,
                transient=True,
                disable=not aside.is_terminal,
            )
            runs[name, sharing] = [search(scores, settings, s, sharing, to_the_end=True) for s in seeds]
    found = {which: cost(scores, of) for which, of in runs.items()}
    first = next(iter(found.values()))
    best = max(scores, key=lambda c: scores[c])
    title = f"{table}: stages until {best} is found, the best of {len(scores)} curricula"
    note = (
        f"median and 90th percentile of {repeats} searches; fewer: than the {first.exhaustive} stages of "
        "every curriculum trained whole\n"
        "after: how far the best by then is from the best of all, mean over the searches, points"
    )
    shown = Table(title=title, caption=note, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("sampler", "stages", "median", "90 %", "fewer", *(f"after {n}" for n in first.regret)):
        shown.add_column(column, justify="left" if column in ("sampler", "stages") else "right", no_wrap=True)
    for (name, sharing), c in found.items():
        fewer = f"{c.exhaustive / c.median:.1f} x"
        regrets = (f"{100 * r:.1f}" for r in c.regret.values())
        shown.add_row(name, "shared" if sharing else "alone", told(c.median), told(c.ninetieth), fewer, *regrets)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(shown)
    if out is not None:
        write(out, table, repeats, found)
    if figure is not None:
        from dermsearch.search.propose.replay_picture import replay_figure

        for path in replay_figure(table, scores, runs, figure):
            console.print(str(path), soft_wrap=True)


def told(stages: float) -> str:
    """A number of stages; a search that ended without the best took endless ones."""
    return f"{stages:g}" if math.isfinite(stages) else "never"


def write(path: Path, table: str, repeats: int, found: dict[tuple[str, bool], Cost]) -> None:
    """One row per number."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["table", "sampler", "sharing", "repeats", "measure", "stages", "value"])
            for (name, sharing), c in found.items():
                head = [table, name, "yes" if sharing else "no", repeats]
                rows.writerow([*head, "found", "", c.found])
                rows.writerow([*head, "median", "", c.median])
                rows.writerow([*head, "ninetieth", "", c.ninetieth])
                rows.writerow([*head, "exhaustive", "", c.exhaustive])
                rows.writerows([*head, "regret", stages, value] for stages, value in c.regret.items())
    except OSError as error:
        raise UserError(f"--csv: '{path}' cannot be written to: {error.strerror}") from None
