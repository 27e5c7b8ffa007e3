"""`dermsearch replay`: what a search would have cost, told by a table of scores that are known already."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermsearch.cli.console import aside, paper
from dermsearch.errors import UserError, nearest

if TYPE_CHECKING:
    from dermsearch.search.propose.replay import Replayed


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
    lag: Annotated[
        int, typer.Option(min=1, max=1000, help="Proposals of a sampler that learns that are under way at once.")
    ] = 1,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(help="A table that curriculum_prior has seen before, or several by repeating the option."),
    ] = None,
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
    from dermsearch.data.prepare.progress import Bar
    from dermsearch.search.propose.replay import cost
    from dermsearch.search.propose.replay import replay as search
    from dermsearch.search.propose.replay_text import render, write_csv
    from dermsearch.search.propose.tables import read_table

    scores = read_table(table)
    runs: dict[tuple[str, bool], list[Replayed]] = {}
    with Bar(aside(), "Searching", "search", "searches") as bar:
        bar.start(2 * repeats * len(names), 0)
        for name, sharing in product(names, (True, False)):
            asked = {"sampler": name, "trials": len(scores), "lag": lag, "learn_from": learn_from or []}
            settings = Search.model_validate(asked)
            found = runs[name, sharing] = []
            for seed in range(repeats):
                found.append(search(scores, settings, seed, sharing, to_the_end=True))
                bar.advance(1)
    costs = {which: cost(scores, of) for which, of in runs.items()}
    console = paper()
    console.print(render(table, scores, costs, repeats))
    if out is not None:
        write_csv(out, table, costs, repeats)
    if figure is not None:
        from dermsearch.search.propose.replay_picture import replay_figure

        console.print(*map(str, replay_figure(table, scores, runs, figure)), sep="\n", soft_wrap=True)
