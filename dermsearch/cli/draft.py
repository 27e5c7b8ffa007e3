"""A study file from a few wishes: as many tasks, seeds and epochs as the time is likely to hold, each line explained.

How long a study takes, its plan tells; so drafts are planned, the richest first, until one fits.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dermsearch.words import many

MEAN = "mean"  # over all labels


@dataclass(frozen=True)
class Collection:
    """What a draft must know of the cases."""

    path: str | None  # of their store; None: built-in ones
    domain: str
    cases: int
    train: int  # of them, to learn from
    side: int  # of the images, at most
    modalities: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Wishes:
    """What a draft is made of."""

    name: str  # of the study
    collection: Collection
    modalities: tuple[str, ...]
    label: str
    labelled: str
    hours: float
    gpus: int


@dataclass(frozen=True)
class Extent:
    """How many curricula a draft asks about, and how often each."""

    tasks: int
    longest: int
    seeds: int


# The richest first.
EXTENTS = (Extent(5, 3, 3), Extent(3, 3, 3), Extent(3, 3, 1), Extent(3, 2, 1), Extent(2, 2, 1), Extent(2, 1, 1))
EPOCHS = (10, 100)  # of a stage: fewer teach little, and more than so many are for the user to ask for
FULL = 0.7  # the share of the time that is planned: what else a machine does takes some, and the budget ends a run
START = 30  # seconds until Ray is there and cases are drawn
ASSUMED = "A100"  # the GPU whose speed is taken for that of the user's
FEWEST = 40  # cases that a study may expect
NO_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")  # to YAML, unless they are quoted
LARGE = 224  # pixels of a side, for a GPU; without one 64
DRAWN = 128  # of built-in images on a GPU


def draft(wishes: Wishes) -> str:
    """The study file of the richest extent whose stages get epochs enough within the time; the poorest gets fewer."""
    epochs = 1
    for extent in EXTENTS:
        epochs = epochs_within(wishes, extent)
        if epochs >= EPOCHS[0]:
            break
    return written(wishes, extent, min(epochs, EPOCHS[1]))


def epochs_within(wishes: Wishes, extent: Extent) -> int:
    """How many epochs every stage may have, so that training and judging end in time; at least one."""
    from dermsearch.run.bill import GPUS
    from dermsearch.run.plan import make_plan
    from dermsearch.study.load import load_study
    from dermsearch.study.reading import read_value

    bill = make_plan(load_study(read_value(written(wishes, extent, 1)))).bill
    assert bill is not None
    peak, share = GPUS[ASSUMED]
    rate = wishes.gpus * peak * share / bill.operations if wishes.gpus else bill.speed * bill.at_once
    left = FULL * 3600 * wishes.hours - START - bill.judging / rate
    return max(1, int(left / (bill.training / rate)))


def written(wishes: Wishes, extent: Extent, epochs: int) -> str:
    """The study file."""
    return "\n".join([*_head(wishes), *_tasks(wishes, extent), *_judging(wishes, extent, epochs)]) + "\n"


def _head(wishes: Wishes) -> list[str]:
    size = size_of(wishes)
    data: dict[str, Any] = {} if wishes.collection.domain == "skin" else {"domain": wishes.collection.domain}
    data |= {"source": "store", "path": wishes.collection.path} if wishes.collection.path else {"source": "synthetic"}
    data |= {"cases": max(FEWEST, wishes.collection.cases), "size": size, "modalities": list(wishes.modalities)}
    encoder = {"name": "resnet18" if wishes.gpus else "resnet10t"}
    if len(wishes.modalities) > 1:
        encoder["branches"] = "separate"
    return [
        *note(
            "A study, written by `dermsearch init`. What is not said here has a default, and what is wrong is refused.",
            "`dermsearch plan` shows what it would do; `dermsearch run` does it, and goes on where it was stopped.",
        ),
        f"name: {flow(wishes.name)}   # results go to results/{wishes.name}",
        "",
        *note(
            "The cases: a case store."
            if wishes.collection.path
            else "The cases: skin lesions that are drawn; another `seed` draws others.",
            "`size` is the side of a picture in pixels, as encoders see it.",
        ),
        f"data: {flow(data)}",
        "",
        *note(
            "Any network of timm."
            + " Each modality has its own; `shared` is one for all." * (len(wishes.modalities) > 1)
        ),
        f"encoder: {flow(encoder)}",
    ]


def _tasks(wishes: Wishes, extent: Extent) -> list[str]:
    from dermsearch.run.reference import described, first_line

    batch, train = batch_of(wishes), wishes.collection.train
    settings: dict[str, dict[str, Any]] = {
        # Those that help after a short training come first.
        "relative_location": {},
        **({"colorme": {}} if wishes.collection.domain == "skin" else {}),  # radiographs have no colours
        "rotation": {},
        "simclr": {},
        "moco_v2": {"queue": batch * max(1, min(4096, train // 2) // batch), "momentum_encoder": 0.99},
        "odc": {"clusters": max(2, min(128, train // 50)), "small": max(1, min(20, train // 8))},
    }
    asked = "each task alone" if extent.longest == 1 else f"every order of up to {extent.longest} of these tasks"
    lines = []
    for task in list(settings)[: extent.tasks]:
        lines += [*note(first_line(described("tasks", task)), indent="    "), f"    {task}: {flow(settings[task])}"]
    return [
        "",
        *note(
            f"What encoders are trained on: {asked}.",
            "A beginning that two share is trained once." * (extent.longest > 1),
            "`dermsearch tasks` lists others, and with a name the settings of one. Any of them may be searched:",
            "{choice: [0.1, 0.2]}, {log: [0.001, 0.1]} or {range: [1, 4]} in the place of a number.",
        ),
        "curriculum:",
        f"  length: [1, {extent.longest}]",
        "  tasks:",
        *lines,
    ]


def _judging(wishes: Wishes, extent: Extent, epochs: int) -> list[str]:
    few: dict[str, Any] = {}
    if wishes.labelled != "all":
        few = {"labelled": wishes.labelled if "%" in wishes.labelled else int(wishes.labelled), "repeats": 3}
    train = {"epochs": epochs, "batch": batch_of(wishes), "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01}
    search = {
        "sampler": "grid",
        "seeds": list(range(extent.seeds)),
        "budget": {"hours": max(0.001, round(wishes.hours, 3))},
    }
    compute = {"engine": "ray", "workers": 1, "threads": 4 if wishes.gpus else 1} | ({"gpus": 1} if wishes.gpus else {})
    return [
        "",
        *note(f"One recipe for all tasks. {many(epochs, 'epoch')}: what the time is likely to hold."),
        f"train: {flow(train)}",
        "",
        *note(
            "Frozen encoders are judged on validation cases: by a linear probe and by neighbours, which learn from",
            "all training labels."
            if not few
            else f"{wishes.labelled} of the labels of every class, drawn three times.",
            "`dermsearch protocols` lists others; `finetune` trains the whole network and says more, at a price.",
        ),
        "downstream:",
        f"  linear: {flow(few)}",
        f"  knn: {flow({'k': neighbours(wishes), **few})}",
        "",
        *note(f"What the search goes by: {'the mean over all labels' if wishes.label == MEAN else 'this label'}."),
        f"objective: {flow({'protocol': 'linear', 'metric': 'balanced_accuracy', 'label': wishes.label})}",
        "",
        *note(
            "The grid tries all." + " Seeds are replicates." * (extent.seeds > 1),
            "" if extent.seeds > 1 else "More seeds, [0, 1, 2], would tell what is luck.",
            "The hours end a run, and the same command goes on for as long again.",
        ),
        f"search: {flow(search)}",
        "",
        *note("Where it runs; nothing here changes a result. On a cluster: `dermsearch run FILE --address auto`."),
        f"compute: {flow(compute)}",
        "",
        *note("What `--quick` lays over all this, for a look whether it goes through; its scores tell nothing."),
        "quick:",
        f"  data: {flow({'size': min(32, size_of(wishes))})}",
        "  curriculum: {length: [1, 1]}",
        "  train: {epochs: 1}",
        "  search: {seeds: [0]}",
    ]


def note(*sentences: str, indent: str = "") -> list[str]:
    """Sentences as comments."""
    text = " ".join(filter(None, sentences))
    return textwrap.wrap(text, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def size_of(wishes: Wishes) -> int:
    """The side of a picture in pixels."""
    return min(wishes.collection.side, (DRAWN if wishes.collection.path is None else LARGE) if wishes.gpus else 64)


def batch_of(wishes: Wishes) -> int:
    """The largest power of two that half of the training cases fill, up to what suits the machine."""
    return 2 ** max(2, min(wishes.collection.train // 2, 256 if wishes.gpus else 32).bit_length() - 1)


def neighbours(wishes: Wishes) -> int:
    """Twenty, or as many as labels there are to learn from."""
    known = wishes.collection.train
    if wishes.labelled.endswith("%"):
        known = int(wishes.collection.train * float(wishes.labelled[:-1]) / 100)
    elif wishes.labelled != "all":
        known = int(wishes.labelled)
    return max(1, min(20, known))


def flow(value: object) -> str:
    """A value as YAML writes it in one line; words stand bare where they may."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_]*", value) and value.lower() not in NO_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
