"""The commands. Everything heavy is imported inside the command that needs it, so that help answers at once."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from dermsearch import __version__
from dermsearch.cli.console import aside, flush, open_streams, paper
from dermsearch.cli.data import data_app
from dermsearch.cli.export import embed, export, predict
from dermsearch.cli.init import init
from dermsearch.cli.judge import judge
from dermsearch.cli.make import make, quality, view
from dermsearch.cli.names import KINDS, command, copy, schema
from dermsearch.cli.replay import replay
from dermsearch.cli.report import report
from dermsearch.cli.results import explain, results_app
from dermsearch.cli.running import run_to_the_end, show
from dermsearch.cli.store import store_app
from dermsearch.errors import EngineLost, UserError, first_line
from dermsearch.words import many

app = typer.Typer(
    help="Which self-supervised curriculum is worth your GPU-weeks? Search it, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"dermsearch {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """What stands before a command; `app` carries the help."""


app.add_typer(data_app, name="data")
app.add_typer(results_app, name="results")
app.add_typer(store_app, name="store")

StudyArg = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study such as curriculum.yaml.")]
OverrideArg = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides of the study, e.g. train.epochs=20 compute.engine=inline."),
]
QuickArg = Annotated[
    bool,
    typer.Option("--quick", help="Lay the study's section 'quick' over it: a small version, called NAME-quick."),
]
UNSAID, FAILED = 1, 3
NO_THREADS = "this machine gives no more threads; end other programs, or lower compute.threads and compute.concurrency"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota or a limit that is used up, wherever in a run
TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, *TAKEN)


@app.command()
def run(
    study: StudyArg,
    overrides: OverrideArg = None,
    quick: QuickArg = False,
    out: Annotated[Path | None, typer.Option(help="Where tables, figures and logs go. Default: results/NAME.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Join the Ray cluster at this address (or 'auto') instead of starting one here."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a machine-readable summary; everything else goes to stderr.")
    ] = False,
) -> None:
    """Run a study: train what is missing of its stage tree, judge it, write tables and figures, print the leaderboard.

    Killed or interrupted, the same command continues where it was. Exit code 0: all stages came through; 1: Ray died;
    2: the study or the command is wrong, nothing was started; 3: some stages failed, the rest is there; 130: it was
    interrupted.
    """
    from dermsearch.study.load import load_study

    told = study, overrides or [], quick
    settings = load_study(*told)
    console = aside()
    folder = out or Path("results") / settings.name
    outcome = run_to_the_end(settings, told, folder, address, console)
    from dermsearch.results import load
    from dermsearch.results.board.leaderboard import leaderboard, summary
    from dermsearch.results.pictures.figures import figures

    results = load(folder)
    try:
        rows = leaderboard(results)
        drawn = figures(folder)
    except UserError:
        if not outcome.failed:
            raise
        rows, drawn = [], []  # the objective has no score at all; what failed is told below
    counts = outcome.summary["stages"]
    became = [f"{counts[state]} {state}" for state in ("trained", "reused", "failed")]
    became += [f"{counts[state]} {state}" for state in ("dropped", "pruned") if counts[state]]
    if fits := outcome.summary["fits"]["trained"]:
        became.append(many(fits, "fit"))
    if unjudged := outcome.summary["judgements"]["failed"]:
        became.append(f"{many(unjudged, 'judgement')} failed")
    took = f"{outcome.summary['seconds']:.0f} s"
    console.print(
        f"Stages: {', '.join(became)} in {took}. Tables and {sum(p.suffix == '.png' for p in drawn)} figures: {folder}",
        soft_wrap=True,
    )
    if said := outcome.summary["budget"]["said"]:
        larger = "" if outcome.summary["budget"]["ended_by"] == "hours" else " with a larger search.budget"
        console.print(f"Ended: {said}. The same command{larger} continues.", soft_wrap=True)
    if rows:
        show(console if as_json else paper(), rows, settings.name, results)
    if as_json:
        print(json.dumps({**outcome.summary, **(summary(rows) if rows else {})}, indent=2))
    if outcome.failed:
        first = outcome.failed[0]
        others = f" (and {len(outcome.failed) - 1} more)" if len(outcome.failed) > 1 else ""
        console.print(f"Failed: {first[0]}: {first[1]}{others}", style="red", soft_wrap=True)
        raise typer.Exit(FAILED)


@app.command()
def plan(
    study: StudyArg,
    overrides: OverrideArg = None,
    quick: QuickArg = False,
    address: Annotated[
        str | None, typer.Option(help="It will be run with this --address, so this machine needs no GPUs.")
    ] = None,
) -> None:
    """Show a study's stage tree, how many stages sharing saves and what it costs. Trains nothing.

    Exit code 2: `run` would refuse it, be it only because its case store or its GPUs are not on this machine.
    """
    from dermsearch.study.load import load_study, located

    settings = load_study(study, overrides or [], quick)
    from dermsearch.run.plan import lines, make_plan, refuse

    with located(study, overrides or [], quick):
        for line in lines(make_plan(settings)):
            print(line)
        refuse(settings, elsewhere=bool(address))


@app.command()
def test(
    folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")],
    curriculum: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Test this one, as the leaderboard names it; may be given several times."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="The stage store, where it is not the one that the study names.")
    ] = None,
) -> None:
    """Open the test split: judge the best on validation, the best single task and no pre-training there, and count it.

    Every opening is written down in the stage store. Choose on validation, and open once.
    """
    from dermsearch.results import load
    from dermsearch.results.board.opened import opened, render
    from dermsearch.run.opening import open_test

    console = aside()
    opening = open_test(
        folder, curriculum or [], store, lambda said: console.print(said, highlight=False, markup=False)
    )
    console.print(f"Opening {opening.number} of this test split: {', '.join(opening.curricula)}", highlight=False)
    found = opened(load(folder))
    assert found is not None
    paper().print(render(found))


@app.command()
def figures(folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")]) -> None:
    """Draw the figures of a finished study again, from its tables alone."""
    from dermsearch.results.pictures.figures import figures as draw

    print(*draw(folder), sep="\n")


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="The folder of a study's results.")],
    protocol: Annotated[str | None, typer.Option(help="Judge by this protocol instead of the study's.")] = None,
    metric: Annotated[str | None, typer.Option(help="balanced_accuracy, macro_f1 or auc.")] = None,
    label: Annotated[str | None, typer.Option(help="A label, or 'mean'.")] = None,
    form: Annotated[
        Literal["table", "csv", "markdown", "latex", "json"], typer.Option("--format", help="For people, or programs.")
    ] = "table",
) -> None:
    """Print the leaderboard of a study again, by any protocol, metric and label that its tables hold."""
    from dermsearch.results import load
    from dermsearch.results.board.leaderboard import leaderboard as make
    from dermsearch.results.board.opened import opened
    from dermsearch.results.board.opened import render as render_opened

    results = load(folder)
    rows = make(results, protocol=protocol, metric=metric, label=label)
    if form != "table":
        from dermsearch.results.board.about import about
        from dermsearch.results.board.formats import FORMATS

        print(FORMATS[form](rows, about(results, rows[0].measure) if rows else None), end="")
        return
    show(paper(), rows, results.study.get("name", str(folder)), results)
    if (found := opened(results, protocol, metric, label)) is not None:
        paper().print(render_opened(found))


COMMANDS: list[Callable[..., None]] = [init, report, explain, replay, export, embed, judge, predict, copy, schema]
for each in COMMANDS:
    app.command()(each)
OF_DATA: list[Callable[..., None]] = [make, quality, view]
for each in OF_DATA:
    data_app.command()(each)
for kind in KINDS:
    app.command(kind)(command(kind))


def program() -> NoReturn:
    """The console script: `main`, without looking through a million imported objects, which took a third of a start."""
    gc.set_threshold(20_000)
    try:
        main()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else 0)


def main() -> NoReturn:
    """The command line: mistakes are one message and exit code 2, trouble of the machine too; bugs keep a traceback.

    Exit code 1: Ray died, or standard output takes no more.
    """
    open_streams()
    code = _answer()
    sys.exit(_unsaid() or code)


def _leave(code: int) -> NoReturn:
    """End as `sys.exit` does, but take nothing apart that was imported, which is a sixth of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none at all
            stream.flush()
    os._exit(code)


def _answer() -> int:
    """Do what the command line asks for; the exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except UserError as error:
        print(f"dermsearch: {error}", file=sys.stderr, flush=True)
        if isinstance(error, EngineLost):
            os._exit(error.code)  # what still waits for that Ray would be waited for
        return error.code
    except OSError as error:
        if code := _unsaid():
            return code
        if error.errno not in (*FULL, *DENIED) or not (error.filename or error.errno in FULL):
            raise
        where = f"{error.filename}: " if error.filename else ""
        then = "; make room, and the same command continues" if error.errno in FULL else ""
        print(f"dermsearch: {where}{os.strerror(error.errno)}{then}", file=sys.stderr)
        return UserError.code
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        print(f"dermsearch: {NO_THREADS}", file=sys.stderr, flush=True)
        return UserError.code
    return 0


def _unsaid() -> int:
    """0, or an exit code where standard output does not take what was printed."""
    error = flush()
    if error is not None and not isinstance(error, BrokenPipeError):  # whoever reads may have read enough
        print(f"dermsearch: standard output cannot be written to: {first_line(error)}", file=sys.stderr)
    return 0 if error is None else UNSAID
