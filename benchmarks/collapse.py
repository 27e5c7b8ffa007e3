"""Does any task collapse, and does it teach anything? Every task from the same random encoder on few real images.

    python benchmarks/collapse.py STORE [--cases 1500] [--epochs 10] [--encoder resnet18] [--size 64] [--keep FILE]
                                  [--tasks TASK ...] [--set TASK.FIELD=VALUE ...]

STORE is a case store (`dermsearch data prepare`). Each task trains, by the trainer of the studies, on the same cases of
the training split with the settings below, which are for few images: AdamW, small heads, few clusters, short queues.
Told are, in the first and the last epoch, the loss, the standard deviation of the unit embeddings times the root of
their dimension (1: spread as at random, 0: collapsed) and their effective rank; then kNN's balanced accuracy on the
validation split, with its bootstrap interval over patients, for the random encoder and after the task; all training
cases are kNN's neighbours. A task is called collapsed if its embeddings end with a deviation below 0.05 or a rank
below 2. iBOT needs a transformer and has one of its own, `--transformer`, judged before and after too.
`--keep` writes each finished row to a file, and does not train again what it finds there.
`--set odc.clusters=48 swav.lr=3e-4` tries other settings, of a task or of the trainer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate import judge
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Setting, find_task
from dermsearch.study.config import Train
from dermsearch.study.data import Data
from dermsearch.training.precision import resolve
from dermsearch.training.stage import Recipe, StageFailed, train_stage
from dermsearch.work.cases import look_of
from dermsearch.work.features import look

TRAIN: dict[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1}
TEACHER = {"hidden": 512, "bottleneck": 128, "local": 4, "momentum_encoder": 0.99}
CONFIG: dict[str, dict[str, Any]] = {
    "relative_location": {},
    "moco_v2": {"queue": 512, "momentum_encoder": 0.99},
    "odc": {"clusters": 12, "hidden": 256, "feature": 128},
    "simclr": {"hidden": 512},
    "byol": {"hidden": 512, "out": 128, "momentum_encoder": 0.99},
    "swav": {"prototypes": 64, "local": 4},
    "dino": {**TEACHER, "out": 256},
    "ibot": {**TEACHER, "out": 512},
    "rotation": {},
    "colorme": {},
    "joint_supervised": {},
}
OWN: dict[str, dict[str, Any]] = {  # of the trainer's settings
    "dino": {"lr": 5e-4, "clip": 3.0},
    "ibot": {"lr": 5e-4, "clip": 3.0},
}
HEADS = f"{'task':<18}{'loss':>16}{'std':>14}{'rank':>14}   {'kNN before':<21}{'kNN after':<21}{'seconds':>7}"


class Unkept:
    """A `Partial` that keeps nothing."""

    def load(self) -> None:
        return None

    def left(self, within: bool = False) -> float:
        return math.inf

    def save(self, state: dict[str, Any]) -> None:
        pass


class Bench:
    """The store, the cases chosen from it, and where this runs."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.cases = given, CaseStore(given.store)
        size = given.size or self.cases.side
        self.data = Data(source="store", path=str(given.store), size=size, modalities=self.cases.modalities)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = resolve(given.precision, int(self.device.type == "cuda"))
        self.label = given.label or next(iter(self.cases.classes))
        train = self.cases.split("train")
        count = min(given.cases, len(train))
        self.rows = np.sort(np.random.default_rng(given.seed).choice(train, count, replace=False))
        self.before: dict[str, list[float]] = {}  # kNN of the random encoders

    def start(self, encoder: str) -> Encoders:
        """The same random encoders for every task."""
        return Encoders.random(encoder, self.cases.modalities, "shared", self.given.seed).to(self.device)

    def knn(self, encoders: Encoders) -> list[float]:
        """Balanced accuracy in percent, and the ends of its interval."""
        train = self.cases.split("train")
        looked = look(encoders, self.cases, self.data, train, "val", self.device, self.precision)
        for row in judge(looked.features, "knn", seed=self.given.seed).rows:
            if (row["label"], row["class"], row["metric"]) == (self.label, "", "balanced_accuracy"):
                return [100 * row[column] for column in ("value", "ci_low", "ci_high")]
        raise UserError(f"--label: must be one of {', '.join(self.cases.classes)}, not {self.label}")

    def recipe(self, name: str) -> Recipe:
        """The settings above, as far as so few cases allow them."""
        given = self.given
        own = {field.removeprefix(f"{name}."): v for field, v in given.set if field.startswith(f"{name}.")}
        fields = find_task(name).Config.model_fields
        config = {**CONFIG[name], **{k: v for k, v in own.items() if k in fields}}
        if name == "moco_v2":  # an image must not meet itself in the queue
            config["queue"] = min(config["queue"], len(self.rows) // 2 // given.batch * given.batch)
        if "label" in fields:
            config["label"] = self.label
        whole = find_task(name).Config(**config).model_dump()
        train = {**TRAIN, **OWN.get(name, {}), "epochs": given.epochs, "batch": given.batch, "momentum": 0.9}
        train |= {k: v for k, v in own.items() if k not in fields}
        return Recipe(name, whole, {"clip": None, **train}, given.seed, self.precision, look_of(self.data))

    def run(self, name: str) -> dict[str, Any]:
        """Train the task and judge what it hands on."""
        encoder = self.given.transformer if name == "ibot" else self.given.encoder
        recipe, task = self.recipe(name), find_task(name)
        units = int(sum(self.cases.has(m)[self.rows].sum() for m in self.cases.modalities))
        classes = {label: len(names) for label, names in self.cases.classes.items()}
        batch, epochs = recipe.train["batch"], recipe.train["epochs"]
        steps = epochs * max(1, units // batch)
        told = Setting(units, self.data.size, 0, batch, recipe.seed, encoder, epochs, steps, classes)
        task.check(task.Config(**recipe.config), told)
        if encoder not in self.before:
            self.before[encoder] = self.knn(self.start(encoder))
        began, encoders = time.perf_counter(), self.start(encoder)
        history = train_stage(recipe, encoders, self.cases, self.rows, Unkept(), lambda row: None, self.device).history
        seconds = time.perf_counter() - began
        first, last = history[0], history[-1]
        ends = {c: [first[c], last[c]] for c in ("loss", "embedding_std", "effective_rank")}
        return {**ends, "before": self.before[encoder], "after": self.knn(encoders), "seconds": seconds}


def setting(text: str) -> tuple[str, Any]:
    """TASK.FIELD=VALUE, of the task's settings or the trainer's."""
    field, _, value = text.partition("=")
    task, _, name = field.partition(".")
    if task not in CONFIG or name not in {*find_task(task).Config.model_fields, *Train.model_fields}:
        raise argparse.ArgumentTypeError(f"{text}: must be TASK.FIELD=VALUE, a field of the task or of the trainer")
    try:
        return field, json.loads(value)
    except ValueError:
        return field, value  # a word


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in row:
        return f"{name:<18}{row['error']}"
    text = f"{name:<18}"
    for column, digits, width in (("loss", 3, 8), ("embedding_std", 2, 7), ("effective_rank", 1, 7)):
        text += "".join(f"{value:>{width}.{digits}f}" for value in row[column])
    text += "   "
    for column in ("before", "after"):
        value, low, high = row[column]
        text += f"{f'{value:.1f} [{low:.1f}, {high:.1f}]':<21}"
    text += f"{row['seconds']:>7.0f}"
    gone = row["embedding_std"][1] < 0.05 or row["effective_rank"][1] < 2
    return text + ("   COLLAPSED" if gone else "")


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(CONFIG), choices=list(CONFIG))
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="TASK.FIELD=VALUE")
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--transformer", default="vit_tiny_patch16_224", help="iBOT's")
    parser.add_argument("--size", type=int, help="side of a view; default: the store's")
    parser.add_argument("--label", help="what kNN predicts; default: the store's first label")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="a file of finished rows")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bench = Bench(given)
    kept = (
        [json.loads(text) for text in given.keep.read_text().splitlines()] if given.keep and given.keep.exists() else []
    )
    settings = {key: str(value) for key, value in vars(given).items() if key not in ("tasks", "set", "keep", "threads")}
    print(f"{len(bench.rows)} cases of {given.store}, {given.epochs} epochs of batches of {given.batch}, ", end="")
    print(f"{bench.data.size} px, {given.encoder}, {bench.precision}; kNN on {bench.label}, balanced accuracy in %")
    print(HEADS, flush=True)
    for name in given.tasks:
        recipe = {}
        try:
            made = bench.recipe(name)
            recipe = json.loads(json.dumps({"config": made.config, "train": made.train}))  # as it is kept
            same = [k["row"] for k in kept if (k["task"], k["settings"], k["recipe"]) == (name, settings, recipe)]
            row = same[-1] if same else bench.run(name)
        except (ImportError, UserError, StageFailed) as error:
            print(line(name, {"error": str(error)}), flush=True)
            continue
        print(line(name, row), flush=True)
        if given.keep and not same:
            with given.keep.open("a") as file:
                file.write(json.dumps({"task": name, "settings": settings, "recipe": recipe, "row": row}) + "\n")


if __name__ == "__main__":
    main()
