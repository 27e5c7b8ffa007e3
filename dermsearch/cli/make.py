"""`dermsearch data make` and `data quality`: cases that a generator draws, and how they stand beside real ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dermsearch.cli.console import aside
from dermsearch.cli.running import continued
from dermsearch.errors import UserError, first_line, nearest
from dermsearch.words import many

if TYPE_CHECKING:
    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.generate.compare import Quality

StoresOption = Annotated[str, typer.Option("--store", help="The stage store where generators and judges are kept.")]
NearestOption = Annotated[
    Path | None, typer.Option(metavar="TABLE", help="Write each made case's nearest training case to this .csv file.")
]
LabelOption = Annotated[str | None, typer.Option(help="Whose classes. Default: the store's first label.")]
ClassOption = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME[=A+B]", help="A class, or one of several joined. Default: all of them."),
]
OthersOption = Annotated[Literal["any", "absent"], typer.Option(help="Findings beside it: as in real cases, or none.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Of a study that is named: with its section 'quick'.")]
JUDGE = "Judge"
STEPS = 2000
MOST = 1_000_000  # made cases of a class


def make(
    real: Annotated[str, typer.Argument(metavar="STORE", help="A case store's folder or URI, or a study's cases.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The folder of the store of made cases.")],
    per_class: Annotated[int, typer.Option(min=1, max=MOST, help="Training cases to make of every class.")] = 1000,
    validation: Annotated[
        int | None, typer.Option(min=0, max=MOST, help="Validation cases of every class. Default: a quarter of those.")
    ] = None,
    label: LabelOption = None,
    cls: ClassOption = None,
    others: OthersOption = "any",
    model: Annotated[str, typer.Option(help="What draws: gan, or one that a package brings.")] = "gan",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the model, as width=2.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training cases. Default: what 2,000 steps take.")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, max=4096, help="Cases of a step.")] = 16,
    side: Annotated[int | None, typer.Option(min=16, max=512, help="Of made images. Default: 64 or less.")] = None,
    modality: Annotated[str | None, typer.Option(help="Of the images. Default: the store's first.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the generator, and of what is drawn.")] = 0,
    stage: Annotated[
        str | None,
        typer.Option(metavar="KEY", rich_help_panel=JUDGE, help="A finished stage that the judge begins with."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(rich_help_panel=JUDGE, help="Else the architecture that it is.")
    ] = "resnet10t",
    judge_epochs: Annotated[int, typer.Option(min=1, rich_help_panel=JUDGE, help="How long it learns.")] = 8,
    store: StoresOption = "results/store",
    quick: QuickOption = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the generator to this .safetensors file, too.")
    ] = None,
    nearest: NearestOption = None,
) -> None:
    """Train a generator on a store's training cases and write a store of cases that it makes.

    Killed or interrupted, the same command continues. Made cases are marked as made for ever.
    """
    from dermsearch.data.prepare.version import version
    from dermsearch.generate.base import MODELS
    from dermsearch.generate.compare import compare
    from dermsearch.generate.exported import export_generator
    from dermsearch.generate.judge import Judging, seen
    from dermsearch.generate.make import Wanted
    from dermsearch.generate.make import make as write
    from dermsearch.generate.train import Making
    from dermsearch.models.artifact import GENERATOR
    from dermsearch.storage.stages import StageStore

    _writable(nearest, ".csv", "--nearest")
    _writable(export, ".safetensors", "--export")
    out = _here(output)
    cases = _first(real, quick)
    modality = modality or cases.modalities[0]
    if modality not in cases.modalities:
        raise UserError(f"--modality: the store has no {modality} images, only {' and '.join(cases.modalities)}")
    if cases.settings.get("made"):
        raise UserError(f"{cases.folder}: holds made cases; make others after the real ones")
    kind = MODELS.find(model)
    config = _configured(kind, setting or ())
    wanted = version(cases, label, cls or (), others)
    size = side or min(64, 1 << (cases.side.bit_length() - 1))
    if size > cases.side:
        raise UserError(f"--side: must be at most {cases.side}, the side of the store's images, not {size}")
    steps = max(1, -(-len(seen(cases, modality, "train")) // batch))
    epochs = epochs or max(1, -(-STEPS // steps))
    making = Making(model, config, modality, size, wanted.label, epochs, batch, max(1, epochs // 10), 500, seed)
    judging = Judging(modality, size, encoder, stage or "", judge_epochs)
    asked = Wanted(wanted, per_class, per_class // 4 if validation is None else validation, seed)
    stages, console = StageStore(store), aside()
    with continued(console):
        made, judge = write(
            cases, out, asked, making, judging, stages, lambda said: console.print(said, soft_wrap=True)
        )
    if export:
        export_generator(stages.artifact(made.settings["generator"])[GENERATOR], export)
        console.print(f"{export}: the generator", soft_wrap=True)
    _tell(compare(made, cases, judge), nearest)


def quality(
    made: Annotated[str, typer.Argument(metavar="MADE", help="A store of made cases.")],
    real: Annotated[str, typer.Option("--real", metavar="STORE", help="The store that they were made after.")],
    stage: Annotated[
        str | None, typer.Option(metavar="KEY", help="A finished stage that the judge begins with.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Else the architecture that it is.")] = "resnet10t",
    judge_epochs: Annotated[int, typer.Option(min=1, help="How long the judge learns.")] = 8,
    store: StoresOption = "results/store",
    quick: QuickOption = False,
    most: Annotated[int, typer.Option(min=20, help="Images of each kind that are compared, at most.")] = 1000,
    nearest: NearestOption = None,
) -> None:
    """Hold made cases against real ones: KID, precision and recall, classes, copies; real against real beside it."""
    from dermsearch.generate.compare import compare, version_of
    from dermsearch.generate.judge import Judging, make_judge
    from dermsearch.storage.stages import StageStore

    _writable(nearest, ".csv", "--nearest")
    mine, theirs = _first(made), _first(real, quick)
    version_of(mine)
    judging = Judging(mine.modalities[0], mine.side, encoder, stage or "", judge_epochs)
    judge = make_judge(theirs, judging, StageStore(store), lambda row: None)
    _tell(compare(mine, theirs, judge, most), nearest)


def view(
    cases: Annotated[str, typer.Argument(metavar="STORE", help="A case store's folder or URI, or a study's cases.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The folder of the part.")],
    label: LabelOption = None,
    cls: ClassOption = None,
    others: OthersOption = "any",
) -> None:
    """Write the cases of some classes of one label as a store of its own, each in the split that it has."""
    from dermsearch.data.prepare.version import version
    from dermsearch.data.prepare.view import view as write

    out, whole = _here(output), _first(cases)
    part = write(whole, out, version(whole, label, cls or (), others))
    print(f"{output}: {many(len(part), 'case')} of {many(len(whole), 'case')}")


def _first(store: str, quick: bool = False) -> CaseStore:
    """A case store by its folder or URI, or of a study the first data set alone: others may not be there yet."""
    from dermsearch.cli.data import _open

    if os.path.isdir(store) or "://" in store:
        if quick:
            raise UserError("--quick: goes with a study, not with a case store")
        return _open(store)
    from dermsearch.data.open import open_cases
    from dermsearch.run.run import cache_folder
    from dermsearch.storage.stages import StageStore
    from dermsearch.study.load import load_study, located

    study = load_study(store, [], quick)
    data = next(iter(study.sets.values()))
    if data.source == "mix":
        return _open(store)
    with located(store, [], quick):
        return open_cases(data, cache_folder(StageStore(study.compute.store)))


def _tell(found: Quality, path: Path | None) -> None:
    print("\n".join(found.told()))
    if path:
        import csv

        try:
            with path.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["made", "nearest training case", "distance"])
                rows = zip(found.made, found.nearest, found.distance, strict=True)
                table.writerows([made, real, f"{far:.4f}"] for made, real, far in rows)
        except OSError as error:
            raise UserError(f"--nearest: '{path}' cannot be written: {error.strerror}") from None


def _configured(kind: Any, pairs: list[str] | tuple[()]) -> dict[str, Any]:
    """The model's settings, with those that a user gives."""
    import yaml
    from pydantic import ValidationError

    given = {}
    for text in pairs:
        name, mark, value = text.partition("=")
        if not mark:
            raise UserError(f"--set: '{text}' must be NAME=VALUE, such as width=2")
        if name not in kind.Config.model_fields:
            raise UserError(
                f"--set: model '{kind.name}' has no setting '{name}'; {nearest(name, kind.Config.model_fields)}"
            )
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set: {name}: {first_line(error)}") from None
    try:
        return kind.Config.model_validate(given).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--set: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _here(output: str) -> Path:
    """A folder to write a store in."""
    if "://" in output:
        raise UserError(f"{output}: is written in a folder of this machine; write it there and copy it")
    return Path(output)


def _writable(path: Path | None, suffix: str, option: str) -> None:
    if path is not None and path.suffix != suffix:
        raise UserError(f"{option}: '{path}' must end in {suffix}")
