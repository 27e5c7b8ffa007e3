"""`dermsearch store ...`: what lies in a stage store, whether it is sound, and what may go."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermsearch.cli.console import aside, paper
from dermsearch.words import many

if TYPE_CHECKING:
    from rich.table import Table

    from dermsearch.upkeep.inventory import Item
    from dermsearch.upkeep.used import Used

store_app = typer.Typer(help="Look after a stage store: list, verify and clean it.", no_args_is_help=True)
StoreArg = Annotated[str, typer.Argument(metavar="STORE", help="A stage store: a folder, or a URI such as s3://b/x.")]
StudiesOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="A folder of results, or one with many below it. May be repeated."),
]
FAILED = 1
SHOWN = 25  # stages, unless all are asked for
WIDTH = 140  # of what is not a terminal


@store_app.command("list")
def list_(
    store: StoreArg,
    studies: StudiesOption = None,
    every: Annotated[bool, typer.Option("--all", help="Show every stage, not the latest only.")] = False,
) -> None:
    """Show the stages of a store, by which study each was made (with --studies: is used), and what takes the space."""
    from rich.filesize import decimal
    from rich.table import Table

    from dermsearch.storage.stages import StageStore
    from dermsearch.upkeep.inventory import STAGE, curriculum, items, manifests

    opened = StageStore(store, create=False)
    found, used = items(opened), _used(studies)
    known = manifests(opened, found)
    table = Table("curriculum", "seed", "size", "made", "study", "key", box=None, pad_edge=False)
    stages = sorted((i for i in found if i.kind == STAGE and i.key in known), key=lambda i: i.written, reverse=True)
    for item in stages if every else stages[:SHOWN]:
        about = known[item.key]
        names = used.stages.get(item.key, ()) if used else [about.get("study", "")]
        made = about["made"].replace("T", " ").removesuffix("Z") if "made" in about else ""
        title = curriculum(item.key, known)
        table.add_row(
            title, str(about.get("seed", "")), decimal(item.bytes), made, ", ".join(sorted(names)), item.key[:8]
        )
    console = paper(WIDTH)
    console.print(table)
    if len(stages) > table.row_count:
        console.print(f"... and {len(stages) - table.row_count:,} older ones; --all shows them")
    console.print("", _totals(found))


@store_app.command()
def verify(
    store: StoreArg,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged away, so that the next run makes it again.")
    ] = False,
) -> None:
    """Read every file: it must be what was written, of whom it stands for, and loadable. Exit code 1 where it is not.

    Links are told and not followed; what a link is in stays where it is.
    """
    from rich.progress import Progress

    from dermsearch.storage.stages import StageStore
    from dermsearch.upkeep import upkeep
    from dermsearch.upkeep.inventory import items, shown

    opened = StageStore(store, create=False)
    told = aside()
    with Progress(console=told, transient=True, disable=not told.is_terminal) as bar:
        reading = bar.add_task("reading", total=None)
        faults = upkeep.verify(opened, lambda done, of: bar.update(reading, completed=done, total=of))
    for link in (link for item in items(opened) for link in item.links):
        print(f"{shown(link)} is a link, which is not followed and left alone")
    for fault in faults:
        print(f"{shown(fault.file)} {shown(fault.what)}")
    if not faults:
        print("Every file is as it was written.")
        return
    stays = {fault.item.name for fault in faults if fault.item.links}
    if repair:
        moved = upkeep.repair(opened, faults)
        print(f"{len(moved)} moved to 'damaged' in the store; a run that needs them makes them again.")
    else:
        print(f"{len(faults)} damaged: --repair moves them away, and a run that needs them makes them again.")
    if stays:
        print(f"Left alone, since there are links in them: {', '.join(map(shown, sorted(stays)))}")
    if stays or not repair:
        raise typer.Exit(FAILED)


@store_app.command()
def gc(
    store: StoreArg,
    studies: StudiesOption = None,
    hours: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=1, help="What was written since stays.")
    ] = 24,
    days: Annotated[
        float, typer.Option("--days", metavar="DAYS", min=0, help="How long what goes lies in the trash of the store.")
    ] = 7,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Move what no study needs to the trash of the store, and empty that of what is old; shows it first, and asks.

    Without --studies only what is of use to none: states of finished stages, half-written files, what was damaged.
    With them also stages, judgements, starting weights and case stores that none of their tables name. What the store
    has not made itself stays, and so do links and what holds one.
    """
    from rich.filesize import decimal

    from dermsearch.storage.stages import StageStore
    from dermsearch.upkeep import upkeep
    from dermsearch.upkeep.inventory import shown

    opened = StageStore(store, create=False)
    found, old = upkeep.unneeded(opened, _used(studies), hours), upkeep.outdated(opened, days)
    if not found and not old:
        print("Nothing to delete.")
        return
    for item in found:
        print(f"{shown(item.name)}  {decimal(item.bytes)}, {(time.time() - item.written) / 86400:.1f} days old")
    for item in old:
        age = (time.time() - upkeep.thrown(item)) / 86400
        print(f"{item.name}  {decimal(item.bytes)}, {age:.1f} days in the trash: goes for good")
    paper().print("", _totals([*found, *old]))
    if not yes and not sys.stdin.isatty():
        print("Nothing was deleted: --yes deletes it.")
        return
    if yes or typer.confirm("Delete it?"):
        upkeep.put_away(opened, found)
        upkeep.empty(opened, old if days else upkeep.outdated(opened, days))
        if found and days:
            print(f"In the trash for {many(days, 'day')}: {decimal(sum(i.bytes for i in found))}.")
        if old or not days:
            print(f"Deleted: {decimal(sum(i.bytes for i in ([*found, *old] if not days else old)))}.")


def _used(studies: list[Path] | None) -> Used | None:
    from dermsearch.upkeep.used import used_by

    return used_by(studies) if studies else None


def _totals(found: Iterable[Item]) -> Table:
    """A row per kind: how many and how large."""
    from rich.filesize import decimal
    from rich.table import Table

    from dermsearch.upkeep.inventory import KINDS

    every = list(found)
    by_kind = {kind: [item for item in every if item.kind == kind] for kind in KINDS}
    table = Table.grid("", "", "", padding=(0, 2, 0, 0))
    table.columns[0].justify = table.columns[2].justify = "right"
    for kind, own in {**by_kind, "in all": every}.items():
        if own:
            table.add_row(f"{len(own):,}", kind, decimal(sum(i.bytes for i in own)))
    return table
