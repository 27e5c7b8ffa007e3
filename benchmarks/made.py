"""Does a classifier of made cases work on real ones, and does adapting to their images help?

    nice -n 15 python benchmarks/made.py MADE --real STORE [--to STORE ...] [--methods source_only adabn ...]

MADE is what `dermsearch data make STORE -o MADE` wrote. Each method learns the made cases' labels, sees the images of
the training cases of each store of `--to` (by default the real one) without their labels, and is judged on validation
cases of it, which share no patient with them. Told are balanced accuracy of the label that was made, with an interval
over patients and over seeds what each gave, beside chance and a classifier of the real labels. The exit code is 1 where
the interval of the first method on the real store is not above chance.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

import numpy as np
import torch

from dermsearch import metrics
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.generate.compare import version_of
from dermsearch.models.artifact import PREDICTOR
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Target
from dermsearch.training.fits import predict_fit, train_fit

METHODS = ("source_only", "adabn", "our_alignment", "dcan", "dann")
CPU = torch.device("cpu")


class Unkept:
    """Nothing is left for another run."""

    def load(self) -> None:
        """Nothing."""

    def left(self, within: bool = False) -> float:
        """It is never time to."""
        return math.inf

    def save(self, state: dict[str, Any]) -> None:
        """Nowhere."""


def score(
    method: str, source: CaseStore, target: CaseStore, label: str, args: argparse.Namespace, seed: int
) -> np.ndarray:
    """Balanced accuracy on the target's validation cases, and in resamples of its patients."""
    size = min(source.side, target.side)
    encoders = Encoders.random(args.encoder, source.modalities[:1], "shared", seed)
    config: dict[str, Any] = {"epochs": args.epochs, "lr": 1e-3, "batch": 32}
    if method != "finetune":
        config["adapt_epochs"] = args.adapt_epochs
    shown = Target(target, target.split("train"), Look(size)) if method != "finetune" else None
    given = (method, config, seed, {}, encoders, source, source.split("train"), Unkept(), lambda row: None, CPU)
    part = train_fit(*given, "fp32", Look(size), target=shown).parts[PREDICTOR]
    rows = target.split("val")
    said = predict_fit(part, target, rows, Look(size), CPU, "fp32")[label]
    weights = metrics.case_weights(target.groups()[rows])
    found = metrics.measure(label, target.label(label)[rows], said, target.classes[label], weights)
    return next(m.values for m in found if m.metric == "balanced_accuracy" and not m.cls)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("made")
    parser.add_argument("--real", required=True)
    parser.add_argument("--to", nargs="*", default=[])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--encoder", default="resnet10t")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--adapt-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ceiling", action="store_true", help="a classifier of the real labels, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made, beats = CaseStore(args.made), True
    label = version_of(made).label
    chance = 1 / len(made.classes[label])
    print(f"{len(made.split('train'))} made training cases, {label}, chance {100 * chance:.1f} %")
    for number, place in enumerate([args.real, *args.to]):
        target = CaseStore(place)
        for method in [*args.methods, *(["finetune"] if args.ceiling else [])]:
            started = time.perf_counter()
            source = target if method == "finetune" else made
            each = [score(method, source, target, label, args, seed) for seed in args.seeds]
            value, low, high = metrics.summary(np.mean(each, axis=0))
            runs = " ".join(f"{100 * values[0]:.1f}" for values in each)
            told = f"{100 * value:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            print(f"{target.folder.name:<32} {method:<14} {told}  seeds: {runs}  {time.perf_counter() - started:.0f} s")
            sys.stdout.flush()
            if number == 0 and method == args.methods[0]:
                beats = low > chance
    return 0 if beats else 1


if __name__ == "__main__":
    sys.exit(main())
