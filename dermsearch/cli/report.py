"""`dermsearch report`: a study, or several, as one page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermsearch.errors import UserError


def report(
    folders: Annotated[list[Path], typer.Argument(help="The folder of a study's results; of several: compare them.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where it goes. Default: report.html in the folder, or comparison.html."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a report: one HTML file that holds everything and fetches nothing. From the tables alone.

    `dermsearch run` writes it too, every few seconds while it is under way, as results/NAME/report.html.
    """
    from dermsearch.results.report.compare import compare
    from dermsearch.results.report.report import report as write

    if output is not None and (output.is_dir() or output.suffix not in (".html", ".htm")):
        raise UserError(f"--output: '{output}' must be the name of a file that ends in .html")
    path = write(folders[0], output) if len(folders) == 1 else compare(folders, output or Path("comparison.html"))
    print(path)
    if show:
        import webbrowser

        if not webbrowser.open(path.absolute().as_uri()):
            raise UserError(f"--open: no browser was found; open {path} yourself")
