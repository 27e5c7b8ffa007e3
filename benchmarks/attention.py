"""Does a letter that gives the label away draw a classifier's eye out of the lungs? On drawn chests that is known.

    python benchmarks/attention.py [--cases 900] [--epochs 6] [--seeds 0 1 2]

A ResNet-10-t is fine-tuned to tell any finding from none in hospital `a`, and in `a_marked`, where a letter outside the
lungs follows the label and nothing else differs. Told is its balanced accuracy on validation patients of its own
hospital and on the same patients of the other, so whether it reads the letter; and the share of its evidence that lies
inside the lungs, by hiding patches (occlusion) and by its own map (attention), beside what the lungs cover. Intervals
are over patients. The exit code is 1 unless, with every seed, the one of `a_marked` falls where the letter says nothing
and occlusion tells the two apart, both by intervals that do not meet.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch import metrics
from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.evaluate.attention import AttentionConfig, Gaze, measures
from dermsearch.evaluate.base import Images
from dermsearch.models.encoders import Encoders
from dermsearch.study.data import Data

ENCODER, SIDE = "resnet10t", 64
HOSPITALS = {"a": "a_marked", "a_marked": "a"}  # the same patients and pictures but for the letter
CLASSES = {"finding": ("none", "any")}
TOLD = {
    "own": "accuracy",
    "other": "in the other",
    "area": "area",
    "ail": "attention",
    "occlusion": "occlusion",
    "occlusion_abs": "of losses and gains",
}
SETTINGS: dict[str, Any] = {"head": "finetune", "stride": 8, "lr": 2e-3, "images": 120}
Told = dict[str, tuple[float | None, float | None, float | None]]


def any_finding(cases: CaseStore, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What there is to learn: a finding or none, which is what the letter follows."""
    return {"finding": (cases.label("finding")[rows] > 0).astype(int)}


def looks(stores: dict[str, CaseStore], variant: str, args: argparse.Namespace, seed: int) -> Told:
    """How well a classifier of that hospital's cases tells them and the other's, and where it looks."""
    cases, cpu = stores[variant], torch.device("cpu")
    train, rows = cases.split("train"), cases.split("val")
    encoders = Encoders.random(ENCODER, cases.modalities, "shared", seed).eval()
    images = Images(encoders, cases, train, rows, Look(SIDE), cpu, nullcontext)
    config = AttentionConfig(**SETTINGS, epochs=args.epochs)
    eye = Gaze(images, "xray", config)
    heads = eye.heads(CLASSES, any_finding(cases, train), cases.groups()[train], seed)
    away = copy.copy(eye)  # the same network, another hospital's images, and no patches hidden
    away.images = replace(images, cases=stores[HOSPITALS[variant]])
    away.config = config.model_copy(update={"images": 0})
    shares, groups = eye.shares(rows, heads), cases.groups()[rows]
    told = (m for m in measures(shares, CLASSES, groups) if (m.label, m.cls) == ("finding", ""))
    found = {m.metric: metrics.summary(m.values) for m in told}
    for where, seen in (("own", shares), ("other", away.shares(rows, heads))):
        said = np.eye(2)[seen["finding"]["predicted"]]
        given = "finding", any_finding(cases, rows)["finding"], said, CLASSES["finding"], metrics.case_weights(groups)
        found[where] = metrics.summary(next(metrics.measure(*given)).values)  # balanced accuracy comes first
    return found


def below(one: Told, other: Told, what: str, than: str) -> bool:
    """Does an interval end before the other begins?"""
    return (one[what][2] or 1) < (other[than][1] or 0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=900)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    told, apart = {"domain": "chest", "modalities": ["xray"], "cases": args.cases, "size": SIDE}, True
    with tempfile.TemporaryDirectory() as folder:
        stores = {v: open_cases(Data.model_validate({**told, "variant": v}), Path(folder)) for v in HOSPITALS}
        for seed in args.seeds:
            found = {variant: looks(stores, variant, args, seed) for variant in HOSPITALS}
            for variant, rows in found.items():
                each = [f"{name} {said(*rows[metric])}" for metric, name in TOLD.items()]
                print(f"seed {seed}  {variant:<8}  {'   '.join(each)}", flush=True)
            clean, marked = found["a"], found["a_marked"]
            apart &= below(marked, clean, "occlusion", "occlusion") and below(marked, marked, "other", "own")
    return 0 if apart else 1


def said(value: float | None, low: float | None, high: float | None) -> str:
    """A share in percent, with its interval where it has one."""
    number = "-" if value is None else f"{100 * value:.1f}"
    return number if low is None or high is None else f"{number} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
