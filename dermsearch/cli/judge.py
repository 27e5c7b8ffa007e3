"""`dermsearch judge`: encoders that somebody else pre-trained, by the protocols of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermsearch.cli.console import aside, paper
from dermsearch.cli.running import run_to_the_end, show
from dermsearch.errors import UserError

FAILED = 3


def judge(
    weights: Annotated[
        list[str],
        typer.Argument(
            help="imagenet, a tag such as resnet50.a1_in1k, hf-hub:ORG/NAME, a file, a folder that `dermsearch export` "
            "wrote, or the key of a stage; NAME=WEIGHTS where it is not of the study's network."
        ),
    ],
    study: Annotated[str, typer.Option(help="A study file, or the name of a shipped study, whose protocols judge.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the study.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Lay the study's section 'quick' over it.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where tables go. Default: results/NAME-judged.")] = None,
    address: Annotated[str | None, typer.Option(help="Join the Ray cluster at this address.")] = None,
) -> None:
    """Judge encoders from elsewhere as a study judges its own, without any pre-training: random weights beside them.

    Tables and leaderboard are those of a study. What is in the stage store is taken from there.
    """
    from dermsearch.study.load import load_study

    told = study, override or [], quick
    settings = load_study(*told)
    from dermsearch.results import load
    from dermsearch.results.board.leaderboard import leaderboard
    from dermsearch.run.judge import judging

    console = aside()
    asked = judging(settings, weights)
    folder = out or Path("results") / asked.name
    outcome = run_to_the_end(asked, told, folder, address, console)
    results = load(folder)
    try:
        show(paper(), leaderboard(results), asked.name, results)
    except UserError:
        if not outcome.failed:
            raise  # else no encoder has a score at all; what failed is told below
    if outcome.failed:
        for what, why in outcome.failed:
            console.print(f"Failed: {what}: {why}", style="red", soft_wrap=True)
        raise typer.Exit(FAILED)
