"""`dermsearch results ...`: what can be done with results tables, a paper's or one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dermsearch.cli.console import paper

results_app = typer.Typer(help="Look into results: a paper's table, your own, or a study's.", no_args_is_help=True)
INCONSISTENT = 1


@results_app.command()
def clinical(
    folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")],
    protocol: Annotated[str | None, typer.Option(help="Judge by this protocol instead of the study's.")] = None,
    label: Annotated[str | None, typer.Option(help="A label; default: the objective's, or diagnosis.")] = None,
    cls: Annotated[str | None, typer.Option("--class", help="The class in question, such as MEL.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the reliability curve to this file, too.")] = None,
) -> None:
    """One class as a clinician asks for it: sensitivity at 80 and 90 % specificity, calibration, accuracy."""
    from dermsearch.results import load
    from dermsearch.results.board.clinical import clinical as make
    from dermsearch.results.board.clinical import render

    results = load(folder)
    board = make(results, protocol, label, cls)
    paper(140).print(render(board, results.study.get("name", str(folder))))
    if figure is not None:
        from dermsearch.results.pictures.reliability import reliability_figure

        print(*reliability_figure(board, figure, results.origin), sep="\n")


@results_app.command()
def samples(
    folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(min=1, max=100, help="How many validation cases.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which cases: a draw.")] = 0,
    protocol: Annotated[str | None, typer.Option(help="Whose answers, instead of the study's protocol's.")] = None,
    label: Annotated[str | None, typer.Option(help="A label; default: the objective's, or its first.")] = None,
) -> None:
    """Draw single cases with what the best curriculum's classifier said of them, and how probable it was."""
    from dermsearch.cli.data import set_of
    from dermsearch.results import load
    from dermsearch.work.samples import draw_samples

    results, study = load(folder), str(folder / "study.yaml")
    print(draw_samples(results, lambda name: set_of(study, name), output, count, seed, protocol, label))


@results_app.command()
def audit(
    table: Annotated[
        str,
        typer.Argument(
            help="A CSV table, a shipped one (sm3_table1), counted predictions, or a study's results folder."
        ),
    ],
    counts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="CSV with label, positive, total (and class); or derm7pt_test_counts."),
    ] = None,
    confusions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV with row, label, true, predicted, count: what the table must follow from."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check that sensitivity, specificity and precision can come from whole numbers of cases, and name what is wrong.

    Exit code 0: everything is consistent; 1: something is not; 2: the command or a file is wrong. A table has the
    columns row, label, sens, spec, prec, or row, column_metric (as Sens|MEL), value. Percent, or fractions throughout.
    """
    from dermsearch.papers.claims import audit_table
    from dermsearch.results.papers.audit_scores import audit_alone
    from dermsearch.results.papers.audit_text import audit_data, audit_lines, scores_data, scores_lines

    own = audit_alone(table, counts, confusions)
    if own is not None:
        good, lines, data = own.consistent, scores_lines(own), scores_data(own)
    else:
        audits = audit_table(table, counts, confusions)
        good, lines, data = all(a.consistent for a in audits), audit_lines(audits), audit_data(audits)
    print(json.dumps(data, indent=2) if as_json else "\n".join(lines))
    if not good:
        raise typer.Exit(INCONSISTENT)


def explain(
    source: Annotated[str, typer.Argument(help="A study's results folder, or a published table: aiseeme_table1.")],
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every number to this CSV file.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", "-o", metavar="FILE", help="Draw it, as PNG and SVG, and as PDF if FILE ends so."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Judge by this protocol instead of the study's.")] = None,
    metric: Annotated[str | None, typer.Option(help="balanced_accuracy, macro_f1 or auc.")] = None,
    label: Annotated[str | None, typer.Option(help="A label, or 'mean'.")] = None,
) -> None:
    """Tell why curricula score as they do: what tasks, their order and settings are worth, and what the search cost.

    From the tables alone. Every effect has an interval; what the curricula cannot tell is said to be untold.
    """
    from dermsearch.results.explain.evidence import gather
    from dermsearch.results.explain.explain import explain as make
    from dermsearch.results.explain.text import render, write_csv

    found = make(gather(source, protocol, metric, label))
    console = paper()
    for part in render(found):
        console.print(part, markup=False)
    if table is not None:
        write_csv(found, table)
        console.print(f"every number: {table}", soft_wrap=True)
    if figure is not None:
        from dermsearch.results.explain.picture import explain_figure

        console.print(*map(str, explain_figure(found, figure)), sep="\n", soft_wrap=True)
