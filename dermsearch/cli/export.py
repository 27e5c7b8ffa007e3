"""`dermsearch export`, `embed` and `predict`: an encoder or a predictor leaves the study, and sees pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dermsearch.cli.console import aside
from dermsearch.errors import UserError
from dermsearch.words import many

BatchOption = Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads that decode. Default: one per core.")]


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
    form: Annotated[
        Literal["timm", "torchvision", "onnx"], typer.Option("--format", help="What the encoder is written for.")
    ] = "timm",
    fit: Annotated[
        str | None, typer.Option(metavar="NAME", help="The predictor of this line of downstream, as finetune@ham:20.")
    ] = None,
) -> None:
    """Write an encoder of a finished study as plain weights, with its configuration and a model card.

    The best curriculum on validation, unless one is named. The folder needs no dermsearch to be loaded. With --fit
    the predictor that was trained from it, for `dermsearch predict`.
    """
    if fit is not None:
        from dermsearch.run.export_fit import export_fit

        if form != "timm":
            raise UserError(f"--format {form}: goes with encoders; a predictor has one form")
        print(export_fit(folder, output, fit, curriculum, stage, store))
        return
    from dermsearch.run.export import export as write

    print(*write(folder, output, curriculum, stage, store, form), sep="\n")


def embed(
    model: Annotated[Path, typer.Argument(help="A folder that `dermsearch export` wrote.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, globs or case stores.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet file.")],
    batch: BatchOption = 128,
    threads: ThreadsOption = None,
) -> None:
    """Features of pictures by an exported encoder, one row each: where the picture lies, and its embedding.

    Pictures that cannot be read are left out, and told. A GPU is used if there is one.
    """
    from dermsearch.run.embed import embed as write

    console = aside()
    count, bad, rate = write(model, images, output, batch, threads, console)
    tell(bad)
    print(f"{output}: {many(count, 'picture')}, {rate:,.0f} a second")


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `dermsearch export --fit` wrote.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, globs or case stores.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .csv or .parquet file.")],
    batch: BatchOption = 128,
    threads: ThreadsOption = None,
) -> None:
    """Probabilities of every label by an exported predictor, a row for each picture or case.

    Of each label the likeliest class, and the probability of every class. Pictures that cannot be read are left out,
    and told. Not for diagnosis.
    """
    from dermsearch.run.predict import predict as write

    count, bad = write(model, images, output, batch, threads, aside())
    tell(bad)
    print(f"{output}: {count} rows")


def tell(bad: list[tuple[str, str]]) -> None:
    """Say what could not be read."""
    console = aside()
    for name, why in bad[:20]:
        console.print(f"{name}: {why}; left out", soft_wrap=True)
    if len(bad) > 20:
        console.print(f"... and {len(bad) - 20} more were left out")
