"""`dermsearch init`: a few questions, and a commented study that can be planned and run.

Every question is an option too: what is given is not asked, and `--yes` takes the default of the others.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermsearch.cli.ask import Asker, hours_of, lies_here, one, present, several, share, whole
from dermsearch.cli.console import writing
from dermsearch.cli.draft import MEAN, Collection, Wishes, draft
from dermsearch.cli.pictures import made
from dermsearch.errors import UserError
from dermsearch.words import many

if TYPE_CHECKING:
    from dermsearch.data.store.case_store import CaseStore

BUILT_IN = "built-in"
CASES, SIDE = 600, 128  # of built-in data
MENU = """\
What are the cases?
  1  built-in skin lesions, drawn here: nothing to download
  2  a folder of pictures, sorted into folders by class
  3  a table (CSV) with a row for each case, which names pictures
  4  a downloaded data set that is known by name, such as ham10000
  5  a case store, made by `dermsearch data prepare`"""


def init(
    file: Annotated[Path, typer.Argument(help="The study file that is written.")] = Path("study.yaml"),
    data: Annotated[
        str | None,
        typer.Option(metavar="CASES", help="built-in, a store, a folder, a table, or NAME:PATH of a data set."),
    ] = None,
    modalities: Annotated[str | None, typer.Option(metavar="A,B", help="Which of the cases' pictures.")] = None,
    label: Annotated[str | None, typer.Option(help="The label to judge by, or mean.")] = None,
    labelled: Annotated[
        str | None, typer.Option(metavar="N", help="Labels to learn from: all, 20 of every class, or 10%.")
    ] = None,
    time: Annotated[str | None, typer.Option(metavar="TIME", help="What it may take: 10min, 2h, 3d.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to train on.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the defaults.")] = False,
) -> None:
    """Ask a few questions and write a commented study that suits them, ready for `dermsearch plan`.

    Pictures of yours, and data sets that lie here, become a case store on the way.
    """
    if file.exists():
        raise UserError(f"{file}: is there already; name another file")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder '{file.parent}'")
    if not yes and None in (data, modalities, label, labelled, time, gpus) and not sys.stdin.isatty():
        raise UserError("init: asks questions, and standard input is no terminal; --yes takes the defaults")
    ask = Asker(yes)
    name = named(file)
    where = of_data(data or which(ask))
    store = None if where == BUILT_IN else made(where, name, ask)
    about = collection(store)
    usual, names = about.modalities if store else about.modalities[:1], (MEAN, *about.labels)
    pictures, labels = ", ".join(about.modalities), ", ".join(names)
    if len(about.modalities) == 1 and modalities is None:
        modalities = pictures  # nothing is left to ask
    chosen = ask(f"Modalities ({pictures})", ",".join(usual), modalities, lambda text: several(text, about.modalities))
    by = ask(f"Label to judge by ({labels})", names[len(names) == 2], label, lambda text: one(text, names, "--label"))
    few = ask("Labels to learn from (all, 20 of every class, 10%)", "all", labelled, share)
    hours = ask("Time to spend (10min, 2h, 3d)", "10min", time, hours_of)
    there = found_gpus()
    count = ask("GPUs", str(there), None if gpus is None else str(gpus), whole)
    wishes = Wishes(name, about, chosen, by, few, hours, count)
    text = draft(wishes)
    from dermsearch.run.plan import lines, make_plan
    from dermsearch.study.load import load_study
    from dermsearch.study.reading import read_value

    plan = make_plan(load_study(read_value(text)))  # what is wrong is told before anything is written
    with writing(file), file.open("x", encoding="utf-8") as out:
        out.write(text)
    for line in lines(plan):
        if line.startswith(("  stages", "  on a GPU" if count else "  time")):
            print(line)
    if count > there:
        print(f"This machine has {many(there, 'GPU')}; a cluster that has more is joined with --address.")
    print(f"{file}: look at it, then `dermsearch plan {file}` and `dermsearch run {file}`")


def which(ask: Asker) -> str:
    """Which cases."""
    if ask.yes:
        return BUILT_IN
    from dermsearch.data.sources.base import SOURCES

    known = [name for name in SOURCES.names() if name not in ("folder", "csv")]
    print(MENU)
    kind = ask("Number", "1", None, lambda text: one(text, tuple("12345"), "Number"))
    if kind == "1":
        return BUILT_IN
    if kind == "4":
        source = ask(f"Its name ({', '.join(known)})", "ham10000", None, lambda text: one(text, known, "Its name"))
        return f"{source}:{ask('The folder of its release', '.', None, lies_here)}"
    what = {"2": "The folder", "3": "The table", "5": "The store"}[kind]
    return ask(what, ".", None, lies_here)


def collection(store: CaseStore | None) -> Collection:
    """What there is to learn from and to judge by."""
    from dermsearch.data.domain import SKIN

    if store is None:
        return Collection(None, SKIN.name, CASES, CASES * 7 // 10, SIDE, ("derm", "clinic"), tuple(SKIN.labels))
    if not store.classes:
        raise UserError(f"{store.folder}: has no labels, and encoders are judged by some; prepare it with --label")
    if all(len(classes) < 2 for classes in store.classes.values()):
        (label, (only, *_)), *_ = store.classes.items()
        raise UserError(
            f"{store.folder}: all cases are of one class, {label} {only}, so there is nothing to tell apart"
        )
    train = len(store.split("train"))
    told = store.domain_name, len(store), train, store.side, store.modalities, tuple(store.classes)
    return Collection(str(store.folder), *told)


def of_data(text: str) -> str:
    """What was said of the cases, where it can be true."""
    if "://" in text:
        raise UserError(f"--data: {text} lies elsewhere; write a study that names it, see `dermsearch copy`")
    return text if text == BUILT_IN or ":" in text else present(text)


def found_gpus() -> int:
    """How many GPUs this machine has."""
    import importlib

    return int(importlib.import_module("torch").cuda.device_count())


def named(file: Path) -> str:
    """A study's name, from that of its file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem).lstrip("_.-")[:64] or "study"
