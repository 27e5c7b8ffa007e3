"""An encoder leaves: its weights, the network and the pictures it wants, and a card that tells what it is.

Each branch of the encoders becomes a folder that timm loads by itself, on any machine without dermsearch; `formats`
has others. Among the seeds of a curriculum the first one is taken: none is better than another, and the card says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsearch import __version__
from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.data.open import domain_of, is_made, open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError, nearest
from dermsearch.models.artifact import ENCODERS
from dermsearch.models.encoders import Encoders, is_vit
from dermsearch.models.hub import CONFIG
from dermsearch.models.hub import MODEL as MODEL
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard, points
from dermsearch.results.board.opened import opened
from dermsearch.results.board.row import Row
from dermsearch.results.tables.schema import DEFAULTS, Results
from dermsearch.run.folder import stages_of
from dermsearch.run.formats import FORMATS, loading
from dermsearch.run.reference import described, first_line
from dermsearch.run.run import cache_folder
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.data import Data
from dermsearch.study.load import load_study

CARD = "README.md"
METRICS = ("auc", "balanced_accuracy")  # that a card tells


@dataclass(frozen=True)
class Chosen:
    """The encoder that is exported: a row of the leaderboard, and the stage of one of its seeds."""

    row: Row
    key: str
    seed: int


@dataclass(frozen=True)
class Exported:
    """A study that something is exported of."""

    results: Results
    study: Study
    store: StageStore
    chosen: Chosen


def begin(folder: Path, out: Path, curriculum: str | None, stage: str | None, where: str | None) -> Exported:
    """Open a study's folder and stage store, and choose; refuses to write where something is."""
    # Empty folders are those of an export that was refused for its form.
    if os.path.lexists(out) and (not out.is_dir() or any(not each.is_dir() for each in out.rglob("*"))):
        raise UserError(f"{out}: is there already; choose another folder with -o or delete it")
    results = load(folder)
    study = load_study(str(folder / "study.yaml"))
    store = stages_of(study, where)
    chosen = choose(results, curriculum, stage)
    if store.manifest(chosen.key) is None:
        raise UserError(
            f"{store.where}: lacks stage {chosen.key}, or it is damaged; `dermsearch run` makes it again, and --store "
            "names another store"
        )
    return Exported(results, study, store, chosen)


def export(
    folder: Path, out: Path, curriculum: str | None, stage: str | None, where: str | None, form: str = "timm"
) -> list[Path]:
    """Write the encoders of a study's best curriculum, or of the one that is named, into folders; returns these."""
    given = begin(folder, out, curriculum, stage, where)
    results, study, store, chosen = given.results, given.study, given.store, given.chosen
    part = store.artifact(chosen.key)[ENCODERS]
    encoders = Encoders.empty(**part.config).load(part.state).eval()
    cases = open_cases(study.main, cache_folder(store)) if is_made(study.main, cache_folder(store)) else None
    written = []
    for branch, modalities in encoders.branches.items():
        own = out / branch if len(encoders.branches) > 1 else out
        make_folder(own)
        network: Any = encoders.backbones[branch]
        about = config(network, encoders.name, given, modalities, cases, study.main)
        about["dermsearch"]["format"] = form
        FORMATS[form](network, own, about)
        (own / CONFIG).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        (own / CARD).write_text("\n".join(card(about, study, results, chosen, cases)) + "\n", "utf-8")
        written.append(own)
    return written


def make_folder(out: Path) -> None:
    """For what is exported."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written to: {error.strerror}") from None


def choose(results: Results, curriculum: str | None, stage: str | None) -> Chosen:
    """The best on validation, or what is named: a curriculum as the leaderboard has it, or the key of a stage."""
    rows = [row for row in leaderboard(results) if row.keys]
    if stage is not None:
        every = (Chosen(row, key, seed) for row in rows for key, seed in zip(row.keys, row.seeds, strict=True))
        begun = {each.key: each for each in every if each.key.startswith(stage)}
        if not begun:
            raise UserError(
                f"--stage: no finished stage of {results.folder} begins with '{stage}'; its table 'stages' has them"
            )
        if len(begun) > 1:
            raise UserError(
                f"--stage: {len(begun)} stages of {results.folder} begin with '{stage}'; give more of the key"
            )
        return next(iter(begun.values()))
    named = {row.name: row for row in reversed(rows)}
    if curriculum is not None and curriculum not in named:
        raise UserError(f"--curriculum: '{curriculum}' has no score on validation; {nearest(curriculum, named)}")
    found = named[curriculum] if curriculum else next((row for row in rows if row.length), None)
    if found is None:
        raise UserError(f"{results.folder}: no curriculum has a score yet; name one with --curriculum")
    return Chosen(found, found.keys[0], found.seeds[0])


def config(
    network: Any,
    name: str,
    given: Exported,
    modalities: Sequence[str],
    cases: CaseStore | None,
    data: Data,
) -> dict[str, Any]:
    """The network and its pictures as timm and the hub write them, and what only dermsearch knows under its name."""
    chosen = given.chosen
    mean, std = domain_of(data).statistics[data.normalise]
    known = getattr(network, "pretrained_cfg", {}) or {}
    settings = {} if cases is None else cases.settings
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": network.num_features,
        "model_args": {"dynamic_img_size": True, "dynamic_img_pad": True} if is_vit(name) else {},
        "pretrained_cfg": {
            "tag": "dermsearch",
            "custom_load": False,
            "input_size": [3, data.size, data.size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(mean),
            "std": list(std),
            "num_classes": 0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
        "dermsearch": {
            "version": __version__,
            "study": given.study.name,
            "root": chosen.row.root,
            "curriculum": chosen.row.curriculum,
            "settings": [json.loads(text) for text in chosen.row.settings],
            "seed": chosen.seed,
            "stage": chosen.key,
            "domain": data.domain,
            "modalities": list(modalities),
            "border": data.border,
            "side": None if cases is None else cases.side,
            "fit": settings.get("fit", "keep"),
            "cut": settings.get("border", 0),
            "origin": given.results.origin,
        },
    }


def card(
    about: Mapping[str, Any], study: Study, results: Results, chosen: Chosen, cases: CaseStore | None
) -> Iterator[str]:
    """The model card, in the hub's Markdown."""
    own, name = about["dermsearch"], study.name
    yield from ("---", "library_name: timm", "tags: [image-feature-extraction, dermsearch]", "---", "")
    yield from (f"# {about['architecture']}, {own['curriculum']}", "")
    yield f"An encoder of {' and '.join(own['modalities'])} images, pre-trained by dermsearch {__version__} in"
    yield f"study `{name}`" + (f": {study.description}." if study.description else ".")
    yield from ("", "## Use", "", "```python", *loading(about), "```", "")
    size = about["pretrained_cfg"]["input_size"][-1]
    cut = f", less {own['border']:.0%} of its short side at every edge," if own["border"] else ""
    yield f"An image{cut} is seen whole, squeezed into {size} x {size} pixels."
    yield "`dermsearch embed` does this for files and folders."
    yield from ("", "## How it was made", "")
    yield f"* data: {data_of(study, cases)}{rights(cases, study.main)}"
    for task, settings in zip(chosen.row.tasks, own["settings"], strict=True):
        known = {**settings.get("config", {}), **settings.get("train", {}), **settings}
        told = ", ".join(f"{key} {value}" for key, value in known.items()
                         if not isinstance(value, dict | list) and value is not None)  # fmt: skip
        yield f"* `{task}`: {title(task)}" + (f"; {told}" if told else "")
    if chosen.row.curriculum == ROOT_CURRICULUM:
        yield "* no pre-training: these are the weights that the study began with"
    yield f"* seed {chosen.seed} of {', '.join(map(str, chosen.row.seeds))}; stage `{chosen.key}`; {own['origin']}"
    yield from ("", "## What it scores", "")
    yield from scores(results, chosen.row)
    if chosen.row.measure.caveats:
        yield from ("", f"Caution: {chosen.row.measure.caveats}.")
    yield from ("", "Not for diagnosis: it was judged on the cases of this study alone.")


def data_of(study: Study, cases: CaseStore | None, data: Data | None = None) -> str:
    """What it was trained on."""
    data = data or study.main
    if cases is None:
        return f"{data.cases} cases ({data.source})"
    train = len(cases) if data.transductive else len(cases.split("train"))
    what = cases.about.get("title") or (f"built-in {data.domain} cases" if data.source == "synthetic" else data.path)
    return f"{train} training cases of {len(cases)}, {what} (fingerprint {cases.fingerprint})"


def rights(cases: CaseStore | None, data: Data) -> str:
    """What its use is bound to: the licence of the data, and whom to cite."""
    about: Mapping[str, Any] = {} if cases is None else cases.about
    cited = f"; cite: {about['citation']}" if about.get("citation") else ""
    drawn = data.source == "synthetic"
    return f"; licence: {about.get('licence') or ('that of dermsearch' if drawn else 'see the data set')}{cited}"


def title(task: str) -> str:
    """What a task says of itself in its first line, the paper's authors among it."""
    said = first_line(described("tasks", task))
    return said.partition(": ")[2] or said


def scores(results: Results, row: Row, protocol: str = "") -> Iterator[str]:
    """A table of what every judge says of the curriculum, beside no pre-training, on validation and on test.

    Or, of a fit, what the judges of one protocol say.
    """
    yield "| judge | split | metric | score, % [95 %] | no pre-training | seeds |"
    yield "|---|---|---|---|---|---|"
    label = row.measure.label
    judges = results.scores.filter(results.scores["split"].to_pandas().eq("val").to_numpy())
    found = judges.group_by(["protocol", "data", "labelled"]).aggregate([]).to_pylist()
    for one in found if not protocol else [each for each in found if each["protocol"] == protocol]:
        data = "" if one["data"] == DEFAULTS["data"] else f"@{one['data']}"
        for metric in METRICS:
            judge = f"{one['protocol']}{data}:{one['labelled']}"
            try:
                rows = leaderboard(results, judge, metric, label)
            except UserError:
                continue
            on_test = opened(results, judge, metric, label)
            tested = {each.validation.key: each.test for each in on_test.tested} if on_test else {}
            of = {each.key: each for each in rows if each.score is not None}
            for split, there in (("validation", of), ("test", tested)):
                if row.key in there:
                    yield line(judge.removesuffix(":all"), split, metric, there[row.key], there.get(row.key.beginning))


def line(judge: str, split: str, metric: str, row: Row, none: Row | None) -> str:
    """A row of the card's table."""
    ends = "" if row.low is None else f" [{points(row.low)}, {points(row.high)}]"
    cells = [judge, split, metric.replace("_", " "), points(row.score) + ends, points(none.score) if none else ""]
    return f"| {' | '.join(cells)} | {len(row.seeds)} |"
