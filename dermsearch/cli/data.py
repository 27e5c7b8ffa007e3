"""`dermsearch data ...`: turn a downloaded data set into a case store, and look at what is in one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dermsearch.cli.console import aside
from dermsearch.cli.running import continued
from dermsearch.errors import UserError, nearest
from dermsearch.words import many

if TYPE_CHECKING:
    from dermsearch.data.prepare.prepare import Order
    from dermsearch.data.store.case_store import CaseStore

data_app = typer.Typer(help="Make case stores of downloaded data sets, and look at them.", no_args_is_help=True)
StoreArg = Annotated[str, typer.Argument(help="The folder of a case store, or a study whose cases are meant.")]
OutOption = Annotated[str, typer.Option("--output", "-o", help="The store's folder, or a URI such as s3://bucket/x.")]
YOURS = "A table or folders of your own"
SPLIT = "Split"
FAILED = 1
DATA_SETS = (
    "derm7pt, ham10000, isic2019, isic2020, slice3d, hiba, bcn20000, pad_ufes_20, fitzpatrick17k, ph2, mednode, "
    "sd198, siim_covid, chexpert, chestxray14; "
    "or 'folder' for class folders, 'csv' for a table of your own."
)


@data_app.command()
def prepare(
    source: Annotated[str, typer.Argument(help=f"The data set: {DATA_SETS}")],
    release: Annotated[str, typer.Argument(metavar="PATH", help="The unpacked release: a folder, URI or (csv) table.")],
    output: OutOption,
    side: Annotated[
        int, typer.Option(min=16, max=4096, help="The short side that images are kept at, in pixels.")
    ] = 128,
    fit: Annotated[
        Literal["keep", "crop", "squash"],
        typer.Option(help="keep the aspect, crop the central square, or squash all into a square."),
    ] = "keep",
    border: Annotated[int, typer.Option(min=0, help="Pixels to cut from every edge of an original.")] = 0,
    encoded: Annotated[
        bool, typer.Option("--encoded", help="Keep JPEGs and decode on use: a tenth of the space.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Prepare on the Ray cluster at this address instead; 'local' starts one here.")
    ] = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="The share of bad images or rows to go on with.")] = 0.01,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Images that are not there do not count.")
    ] = False,
    duplicates: Annotated[
        Literal["out", "keep"] | None,
        typer.Option(help="Images that occur twice. Default: out, but kept where a published split holds them."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            rich_help_panel=SPLIT,
            help="Such as train=0.7,val=0.15,test=0.15, the default; instead of a published split.",
        ),
    ] = None,
    split_by: Annotated[
        Literal["published", "patient", "lesion", "image"] | None,
        typer.Option(rich_help_panel=SPLIT, help="Default: published, else patient, else lesion. 'image' leaks."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, rich_help_panel=SPLIT, help="Of the split.")] = 0,
    fold: Annotated[int, typer.Option(min=0, rich_help_panel=SPLIT, help="Of a release with several splits.")] = 0,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="MODALITY=COLUMN", rich_help_panel=YOURS, help="Image files, as derm=dermoscopy."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="A label; the first is the diagnosis."),
    ] = None,
    case: Annotated[str | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="Ids of cases.")] = None,
    lesion: Annotated[str | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="Ids of lesions.")] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="Ids of patients.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="train, val or test.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Masks, called as their cases or images, or with _mask."),
    ] = None,
    uncertain: Annotated[
        Literal["unknown", "absent", "present"] | None,
        typer.Option(help="chexpert: what a finding is that a report is not sure of. Default: unknown."),
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="Mask files.")] = None,
    root: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", rich_help_panel=YOURS, help="Where a table's images lie, if not beside it."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", rich_help_panel=YOURS, help="Anything else to keep.")
    ] = None,
    modality: Annotated[
        str, typer.Option(rich_help_panel=YOURS, help="Of a folder's images: derm, clinic, or what the domain has.")
    ] = "derm",
    domain: Annotated[
        str, typer.Option(rich_help_panel=YOURS, help="What the images are of: skin, or what a package brings.")
    ] = "skin",
) -> None:
    """Turn a downloaded data set into a case store.

    Killed or interrupted, the same command continues. What cannot be used is left out and listed with reasons.
    """
    from dermsearch.data.decode.image import Form
    from dermsearch.data.prepare.engines import on_cores
    from dermsearch.data.prepare.prepare import Order
    from dermsearch.data.prepare.progress import Bar
    from dermsearch.data.sources.base import SOURCES, Columns
    from dermsearch.data.store.splits import Split, parse_shares

    table = None
    path, mark, query = release.partition("?") if "://" in release else (release, "", "")
    if source == "csv" and "." in os.path.basename(path) and not os.path.isdir(path):
        folder, table = os.path.split(path)
        release = (folder or ".") + mark + query
    if uncertain and source != "chexpert":
        raise UserError("--uncertain: goes with chexpert only, whose labels say so")
    if root and source != "csv":
        raise UserError("--root: goes with csv only, whose table names the images")
    of_tables = {"--image": image, "--label": label, "--case": case, "--lesion": lesion, "--patient": patient}
    of_tables |= {"--split-column": split_column, "--mask": mask, "--metadata": metadata}
    for option, given in of_tables.items():
        if given and source != "csv" and source in SOURCES.shipped:  # what a package brings may read any of them
            raise UserError(f"{option}: goes with csv only, whose table's columns have no names that are known")
    if fold and source != "sd198" and source in SOURCES.shipped:
        raise UserError("--fold: goes with sd198 only, which has several published splits")
    order = Order(
        source,
        root or release,
        output,
        Form(side, fit, border),
        encoded,
        Split(split_by, parse_shares(split) if split else None, seed),
        Columns(
            images=_pairs(image or ()),
            labels=tuple(label or ()),
            case=case,
            lesion=lesion,
            patient=patient,
            split=split_column,
            mask=mask,
            metadata=tuple(metadata or ()),
            modality=modality,
            fold=fold,
            table=table,
            tables=release if root else None,
            domain=domain,
            uncertain=uncertain,
        ),
        max_bad,
        allow_missing,
        duplicates,
        masks,
    )
    if split and split_by == "published":
        raise UserError("--split: shares go with a split that is made, not with --split-by published")
    if address:
        from dermsearch.engines.ray_data import on_cluster

        engine = on_cluster(address)
    else:
        engine = on_cores(workers or os.cpu_count() or 1)
    console = aside()
    with continued(console), Bar(console) as bar:
        _finished(order, engine, bar)


def _finished(order: Order, engine: Any, bar: Any) -> None:
    from rich.filesize import decimal

    from dermsearch.data.prepare.prepare import prepare as make

    started = time.monotonic()
    manifest = make(order, engine, bar)
    seconds = time.monotonic() - started
    odd = manifest["notes_by_kind"]
    if not bar.started:
        bar.say(f"{order.store}: is there already, made in the same way: {many(manifest['cases'], 'case')}.")
        return
    bar.say(f"{order.store}: {many(manifest['cases'], 'case')} in {seconds:.1f} s, {decimal(manifest['bytes'])}.")
    if odd:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in odd.items())
        bar.say(f"Odd or bad: {kinds}. `dermsearch data describe {order.store}` tells more.")


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    """The column of each modality."""
    found: dict[str, str] = {}
    for text in texts:
        modality, _, column = text.partition("=")
        if not modality or not column:
            raise UserError(f"--image: '{text}' must be MODALITY=COLUMN, such as derm=dermoscopy")
        if modality in found:
            raise UserError(f"--image: {modality} has two columns, {found[modality]} and {column}; name one")
        found[modality] = column
    return found


@data_app.command()
def check(
    store: Annotated[str, typer.Argument(help="The folder or URI of a case store.")],
    real: Annotated[
        str | None, typer.Option(metavar="STORE", help="Of made cases: those that they were made after. Any copies?")
    ] = None,
) -> None:
    """Verify a store: checksums, published counts, no leak between splits. Exit code 1 where something is wrong."""
    from dermsearch.data.inspect.check import check as verify
    from dermsearch.data.inspect.copies import copied

    folder = _fetched(store) if "://" in store else store
    report = verify(folder)
    if not report.failed and (real or _open(str(folder)).settings.get("source") == "made"):
        mark, said = copied(_open(str(folder)), _open(real) if real else None)
        report.found.append((mark, "copies", said))
    print("\n".join(report.lines))
    if report.failed:
        raise typer.Exit(FAILED)


@data_app.command()
def describe(store: StoreArg) -> None:
    """Show a store's data card: counts, class balance by split, image sizes, what is missing, licence."""
    from dermsearch.data.store.card import describe as lines

    print("\n".join(lines(_open(store))))


@data_app.command()
def show(
    store: StoreArg,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("cases.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="How many cases to show.")] = 24,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which cases: a draw.")] = 0,
) -> None:
    """Draw a contact sheet of some cases, every modality side by side, with their labels."""
    from dermsearch.data.inspect.show import show_store

    print(show_store(_open(store), output, count, seed))


@data_app.command()
def mix(
    stores: Annotated[list[str], typer.Argument(help="Case stores to join.")],
    output: OutOption,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="STORE", help="Leave out images that also stand in this store, to judge on it fairly."),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Its share of an epoch of training, 1 of those not named; 'equal': all the same. Default: by size.",
        ),
    ] = None,
) -> None:
    """Join stores into one for pre-training; every image keeps its modality."""
    from rich.filesize import decimal

    from dermsearch.data.prepare.mix import mix as join
    from dermsearch.data.prepare.mix import weights_of
    from dermsearch.data.prepare.progress import Bar

    with Bar(aside()) as bar:
        manifest = join(list(stores), output, list(without or ()), bar, weights_of(stores, weight))
        bar.say(f"{output}: {many(manifest['cases'], 'case')}, {decimal(manifest['bytes'])}.")


StageOption = Annotated[str, typer.Option("--stage", metavar="KEY", help="The finished stage whose encoders look.")]
StagesOption = Annotated[str, typer.Option("--store", help="The stage store that it is in: a folder or a URI.")]
ModalityOption = Annotated[str | None, typer.Option(help="Of the images that are looked at. Default: the first known.")]
SizeOption = Annotated[int | None, typer.Option(min=32, help="Side that images are seen at. Default: the stored one.")]
NormaliseOption = Annotated[str, typer.Option(help="The statistics that pixels are normalised by.")]


@data_app.command()
def borrow(
    target: Annotated[str, typer.Argument(help="The case store whose cases borrow: a folder, URI or study.")],
    reference: Annotated[
        str, typer.Option("--from", metavar="STORE", help="The case store whose training cases lend their rows.")
    ],
    stage: StageOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="The .arrow file to write.")],
    store: StagesOption = "results/store",
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many of the nearest cases lend together.")] = 1,
    least: Annotated[float, typer.Option(min=-1, max=1, help="Below this cosine nothing is lent.")] = -1.0,
    weights: Annotated[
        Literal["equal", "near"], typer.Option(help="Of several lenders: all alike, or the nearer the more.")
    ] = "equal",
    column: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column to borrow. Default: all that may be inputs.")
    ] = None,
    modality: ModalityOption = None,
    size: SizeOption = None,
    normalise: NormaliseOption = "imagenet",
) -> None:
    """Lend every case the metadata of the training case of another store that looks most as it does.

    Two controls are written beside it: the rows of random cases, and the means of the columns.
    """
    from dermsearch.work.borrow import Lending, path_of
    from dermsearch.work.borrow import borrow as lend
    from dermsearch.work.eye import open_eye

    if output.suffix != ".arrow":
        raise UserError(f"--output: '{output}' must end in .arrow")
    mine, theirs = _open(target), _open(reference)
    eye = open_eye(store, stage, (mine, theirs), modality, size, normalise)
    tables = lend(mine, theirs, eye, Lending(k, least, weights, tuple(column or ())), output)
    for kind, table in tables.items():
        lack = {name: table[name].null_count for name in table.column_names[4:]}
        said = ", ".join(f"{name} {count:,}" for name, count in lack.items() if count) or "nothing"
        print(f"{path_of(output, kind)}: {table.num_rows:,} rows, {kind}; missing: {said}")
    similar = [value for value in tables["nearest"]["similarity"].to_pylist() if value is not None]
    below = sum(value < least for value in similar)
    middle = sorted(similar)[len(similar) // 2]
    print(
        f"cosine of the nearest: median {middle:.3f}; below {least:g}, and without a row: {below:,} of {len(similar):,}"
    )


@data_app.command()
def found(
    cases: StoreArg,
    stage: StageOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("found.png"),
    store: StagesOption = "results/store",
    label: Annotated[str, typer.Option(help="The label that tells right from wrong, else the store's first.")] = "",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many validation cases ask.")] = 8,
    k: Annotated[int, typer.Option("-k", min=1, max=20, help="How many training cases are shown for each.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which cases ask: a draw.")] = 0,
    modality: ModalityOption = None,
    size: SizeOption = None,
    normalise: NormaliseOption = "imagenet",
) -> None:
    """Draw validation cases beside the training cases that a stage finds most alike, right ones and wrong ones."""
    from dermsearch.work.eye import open_eye
    from dermsearch.work.found import draw_found

    opened, label = _open_with(label, cases)
    eye = open_eye(store, stage, (opened,), modality, size, normalise)
    print(draw_found(opened, eye, label, output, count, k, seed))


@data_app.command()
def attention(
    cases: StoreArg,
    stage: StageOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("attention.png"),
    store: StagesOption = "results/store",
    label: Annotated[str, typer.Option(help="The label that is predicted, else the store's first.")] = "",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many validation images are shown.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which images: a draw; and of the tuned head.")] = 0,
    head: Annotated[Literal["linear", "finetune"], typer.Option(help="A probe, or all is tuned.")] = "linear",
    epochs: Annotated[int, typer.Option(min=1, help="Of --head finetune.")] = 10,
    stride: Annotated[int | None, typer.Option(min=8, max=16, help="8 or 16: a finer map of the same weights.")] = None,
    modality: ModalityOption = None,
    size: SizeOption = None,
    normalise: NormaliseOption = "imagenet",
) -> None:
    """Draw where classifiers look: validation images with their masks, without pre-training and from a stage."""
    from dermsearch.evaluate.base import configure
    from dermsearch.work.attended import draw_attention
    from dermsearch.work.eye import open_eye

    opened, label = _open_with(label, cases)
    if stride not in (None, 8, 16):
        raise UserError(f"--stride: must be 8 or 16, not {stride}")
    eye = open_eye(store, stage, (opened,), modality, size, normalise)
    config = configure("attention", {"head": head, "epochs": epochs, "stride": stride})
    print(draw_attention(opened, eye, label, output, count, seed, config))


def _fetched(uri: str) -> Path:
    """A remote store's copy on this machine."""
    from dermsearch.data.open import fetch

    return fetch(uri, Path("~/.cache/dermsearch/data").expanduser())


def _open_with(label: str, store: str) -> tuple[CaseStore, str]:
    """A case store that has the label, and which that is: its first, if none is said."""
    opened = _open(store)
    label = label or next(iter(opened.classes), "")
    if label not in opened.classes:
        raise UserError(f"--label: the cases have no label '{label}'; {nearest(label, opened.classes)}")
    return opened, label


def _open(store: str) -> CaseStore:
    """A case store by its folder or URI, or the cases of a study."""
    from dermsearch.data.store.case_store import CaseStore

    if os.path.isdir(store):  # Path.is_dir raises where a name is too long
        return CaseStore(store)
    if "://" in store:
        return CaseStore(_fetched(store))
    from dermsearch.study.finding import find
    from dermsearch.study.wording import short

    try:
        find(store)
    except UserError as error:
        if store.endswith((".yaml", ".yml")) or "no shipped study" not in str(error):
            raise
        raise UserError(
            f"{short(store, 300)}: is neither a case store's folder (`dermsearch data prepare` makes one) nor a study"
        ) from None

    return set_of(store)


def set_of(file: str, name: str | None = None) -> CaseStore:
    """A data set of a study, the first unless it is named."""
    from dermsearch.data.mixed import open_sets
    from dermsearch.data.open import open_cases
    from dermsearch.run.run import cache_folder
    from dermsearch.storage.stages import StageStore
    from dermsearch.study.load import load_study, located

    study = load_study(file)
    with located(file):
        cache = cache_folder(StageStore(study.compute.store))
        sets = open_sets(study.sets, cache, lambda data: open_cases(data, cache))
        return sets[name] if name in sets else next(iter(sets.values()))
