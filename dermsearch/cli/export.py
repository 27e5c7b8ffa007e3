"""`dermsearch export` and `embed`: an encoder leaves the study, and sees pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermsearch.cli.console import aside


def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder that is written; it must not be there.")],
    curriculum: Annotated[
        str | None, typer.Option(metavar="NAME", help="This one, as the leaderboard names it, instead of the best.")
    ] = None,
    stage: Annotated[str | None, typer.Option(metavar="KEY", help="The stage with this key, or its beginning.")] = None,
    store: Annotated[
        str | None, typer.Option(help="The stage store, where it is not the one that the study names.")
    ] = None,
) -> None:
    """Write an encoder of a finished study as plain timm weights, with its configuration and a model card.

    The best curriculum on validation, unless one is named. The folder needs no dermsearch to be loaded.
    """
    from dermsearch.run.export import export as write

    for written in write(folder, output, curriculum, stage, store):
        print(written)


def embed(
    model: Annotated[Path, typer.Argument(help="A folder that `dermsearch export` wrote.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, globs or case stores.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet file.")],
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that decode. Default: one per core.")] = None,
) -> None:
    """Features of pictures by an exported encoder, one row each: where the picture lies, and its embedding.

    Pictures that cannot be read are left out, and told. A GPU is used if there is one.
    """
    from dermsearch.run.embed import embed as write

    console = aside()
    count, bad, rate = write(model, images, output, batch, threads, console)
    for name, why in bad[:20]:
        console.print(f"{name}: {why}; left out", soft_wrap=True)
    if len(bad) > 20:
        console.print(f"... and {len(bad) - 20} more were left out")
    print(f"{output}: {count} pictures, {rate:,.0f} a second")
