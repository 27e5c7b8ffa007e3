"""From a store of real cases to one of made cases: judge and generator from the stage store, or trained and kept there.

What is made says so for ever: its settings hold it, which are in its fingerprint, and with it in every key; its card
and the tables of every study that reads it repeat it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch.data.case import Case
from dermsearch.data.domain import setting_of
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.version import Version
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MANIFEST
from dermsearch.errors import UserError
from dermsearch.generate.base import MODELS, conditions, model_of
from dermsearch.generate.judge import Critic, Judging, make_judge, seen
from dermsearch.generate.train import Making, drawn, train_generator
from dermsearch.models.artifact import GENERATOR, Part
from dermsearch.storage.keys import digest
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.training.health import StageFailed
from dermsearch.training.stage import Trained
from dermsearch.words import many
from dermsearch.work.stages import from_what_is_left

SAVED = 30.0  # seconds between two states
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What a user asks for."""

    version: Version
    each: int  # training cases of every class
    validation: int  # validation cases of every class
    seed: int = 0  # of what is drawn; the generator's own is its making's


def make(
    cases: CaseStore, out: Path, asked: Wanted, making: Making, judging: Judging, store: StageStore, say: Say
) -> tuple[CaseStore, Critic]:
    """The store of made cases, and who judged them on the way."""
    if len(seen(cases, making.modality, "train")) < 2:
        raise UserError(f"{cases.folder}: has no training cases with an image of {making.modality} to learn from")
    if not (out / MANIFEST).is_file() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty and holds no case store; choose another folder with -o")
    kind = MODELS.find(making.model)
    kind.check(kind.Config.model_validate(making.config), making.size)
    try:
        judge = make_judge(cases, judging, store, _reporter("judge", judging.epochs, say))
        key, part = generator(cases, making, judge, store, judge.device, say)
    except StageFailed as error:
        raise UserError(f"{error}; try a smaller rate, as lr=0.0001") from None
    settings = told(cases, asked, key)
    if (out / MANIFEST).is_file():
        there = CaseStore(out)
        if there.settings != json.loads(json.dumps(settings)):
            raise UserError(f"{out}: holds other cases already; choose another folder with -o or delete it")
        say(f"{out}: is there already, made in the same way: {many(len(there), 'case')}.")
        return there, judge
    named, records = plan(cases, asked, making.modality)
    classes = {asked.version.label: tuple(named)} if asked.version.own else cases.classes
    splits = {case: split for case, split, _, _ in records}
    images = draw(records, part, asked, classes, judge.device)
    made = write_store(out, images, splits, classes, settings, about=about(cases, asked), grey=cases.grey)
    say(f"{out}: {many(len(made), 'made case')}.")
    return made, judge


def generator(
    cases: CaseStore, making: Making, judge: Critic, store: StageStore, device: torch.device, say: Say
) -> tuple[str, Part]:
    """The trained generator's key and artifact, from the stage store or for it."""
    kind = MODELS.find(making.model)
    told = dataclasses.asdict(making)
    key = digest("generator", cases.fingerprint, kind.version, told, judge.key)
    if store.manifest(key) is not None:
        say(f"generator {key[:8]}: is in {store.where} already.")
        return key, store.artifact(key)[GENERATOR]
    partial, rows = PartialStage(store, key, every=SAVED), seen(cases, making.modality, "train")
    report, started = _reporter("generator", making.epochs, say), time.perf_counter()

    def train() -> Trained:
        history, part = train_generator(making, cases, rows, judge.far, partial, report, device)
        return Trained(history, {GENERATOR: part})

    trained = from_what_is_left(partial, train)
    manifest = {"kind": GENERATOR, "task": making.model, "settings": told, "seed": making.seed, "judge": judge.key}
    manifest |= {"cases": cases.fingerprint, "epochs": len(trained.history), "took": time.perf_counter() - started}
    manifest |= {"made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    store.commit(key, trained.parts, trained.history, manifest)
    best = min((row for row in trained.history if "kid" in row), key=lambda row: row["kid"])
    say(f"generator {key[:8]}: that of epoch {best['epoch']}, KID {best['kid']:.2f} against training cases.")
    return key, trained.parts[GENERATOR]


Planned = tuple[str, str, int, np.ndarray]  # case, split, made class, all labels


def plan(cases: CaseStore, asked: Wanted, modality: str) -> tuple[list[str], list[Planned]]:
    """The names of the made classes, and every case that is to be made."""
    version, rows = asked.version, seen(cases, modality, "train")
    count = asked.each + asked.validation
    classes, labels = version.asked(cases, rows, count, asked.seed)
    splits = np.tile(np.repeat(["train", "val"], [asked.each, asked.validation]), len(version.classes))
    order = np.random.default_rng([asked.seed, 1]).permutation(len(classes))  # classes are mixed
    records = [(f"M{i:06d}", str(splits[at]), int(classes[at]), labels[at]) for i, at in enumerate(order.tolist())]
    return list(version.classes), records


def draw(
    records: list[Planned], part: Part, asked: Wanted, classes: dict[str, tuple[str, ...]], device: torch.device
) -> Iterator[Case]:
    """The cases one by one; a made image belongs to no patient."""
    model = model_of(part).to(device)
    drawing = model.drawing
    told = conditions(np.stack([labels for *_, labels in records]), drawing.classes)
    images = drawn(model, told, asked.seed, "made", device)
    for (case, _, cls, labels), image in zip(records, images, strict=True):
        known = {asked.version.label: cls} if asked.version.own else dict(zip(classes, labels.tolist(), strict=True))
        yield Case(case, "", "", {drawing.modality: image}, known)


def told(cases: CaseStore, asked: Wanted, key: str) -> dict[str, Any]:
    """The settings that decide what is in the store."""
    version = asked.version
    return {
        "source": "made",
        "made": f"images made by a generator of the training cases of store {cases.fingerprint[:8]}",
        "of": cases.fingerprint,
        "generator": key,
        "label": version.label,
        "classes": {name: list(of) for name, of in version.classes.items()},
        "others": version.others,
        "own_classes": version.own,
        "per_class": [asked.each, asked.validation],
        "seed": asked.seed,
        **setting_of(cases.domain),
    }


def about(cases: CaseStore, asked: Wanted) -> dict[str, Any]:
    """What the card says of where they come from. What was allowed with the real images binds who uses these."""
    beside = "with nothing beside" if asked.version.others == "absent" else "with what stands beside in real cases"
    found: dict[str, Any] = {
        "title": f"Made cases, after {cases.about.get('title') or 'built-in drawn cases'}",
        "notes": [
            f"{asked.version.label}, {beside}; no image is of a patient.",
            "Never a validation or test set of a claim about real cases.",
        ],
    }
    return found | {k: cases.about[k] for k in ("licence", "citation", "home") if cases.about.get(k)}


def _reporter(who: str, epochs: int, say: Say) -> Callable[[dict[str, Any]], None]:
    def report(row: dict[str, Any]) -> None:
        kid = f", KID {row['kid']:.2f}" if "kid" in row else ""
        said = {"loss": row["loss"], **row.get("parts", {})}
        told = ", ".join(f"{name} {value:.3f}" for name, value in said.items())
        say(f"{who}: epoch {row['epoch']} of {epochs}, {told}{kid}, {row['seconds']:.1f} s")

    return report
