"""Is a student of SSD-KD better than the same one alone, and than its teacher?

    python benchmarks/distil.py [--cases 400] [--size 64] [--epochs 5] [--seed 0] [--folder F]

Built-in cases, both images. Three stages of `ssd_kd`, each judged by a linear probe of the eight labels:

student   a resnet10t behind a resnet18 that learns the labels for `--epochs` and a rotation head for one; then it
          learns from labels and teacher for as many.
alone     the same network from the same weights, views and rates, for as many epochs, from the labels alone.
teacher   a resnet18 that learns the labels as the student's teacher does, from other random weights.

Printed: mean balanced accuracy and AUC of held-out cases, and differences on the same resamples of patients.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.slimp import told
from dermsearch.metrics import case_weights
from dermsearch.results import load
from dermsearch.results.tables.measure import Measure
from dermsearch.results.tables.said import said
from dermsearch.run.run import run_study
from dermsearch.study.config import Study

TERMS = ("answers", "turned", "similarity", "distances", "angles", "gram")  # that come from the teacher
ALONE = {"teaching": 0.0, "rotating": 0.0, "classes": 1.0, **dict.fromkeys(TERMS, 0.0)}
METRICS = ("balanced_accuracy", "auc")


def roles(epochs: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """By role its network and what is set in its stage."""
    whole = 2 * epochs + 1
    shares = {"teaching": epochs / whole, "rotating": 1 / whole, "gram": 100.0}  # maps are small here
    return {
        "student": ("resnet10t", {"epochs": whole, "teacher": "resnet18", **shares}),
        "alone": ("resnet10t", {"epochs": epochs, **ALONE}),
        "teacher": ("resnet18", {"epochs": epochs, **ALONE}),
    }


def study(role: str, network: str, settings: dict[str, Any], given: argparse.Namespace, folder: Path) -> Study:
    """One stage, and what it begins with."""
    return Study.model_validate(
        {
            "name": role,
            "data": {"cases": given.cases, "size": given.size, "seed": given.seed, "modalities": ["derm", "clinic"]},
            "encoder": {"name": network, "branches": "separate"},
            "curriculum": {"tasks": {"ssd_kd": {"batch": 16, "lr": 0.01, **settings}}, "length": [1, 1]},
            "downstream": {"linear": {}},
            "search": {"seeds": [given.seed]},
            "compute": {"engine": "inline", "store": str(folder / "store")},
        }
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    found: dict[tuple[str, str], np.ndarray] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        for role, (network, settings) in roles(given.epochs).items():
            began = time.perf_counter()
            run_study(study(role, network, settings, given, folder), folder / role, None, Console(quiet=True))
            print(f"{role}: {network}, {time.perf_counter() - began:.0f} s", flush=True)
            for metric in METRICS:
                measure = Measure("linear", metric, "mean", "val")
                for judgement in said(load(folder / role), measure):
                    who = role if judgement.curriculum == "ssd_kd" else f"{network}, random"
                    found[who, metric] = judgement.scores(measure, case_weights(judgement.groups))
    for metric in METRICS:
        print(f"\n{metric.replace('_', ' ')} of {len(judgement.groups)} cases, %")
        for who in dict.fromkeys(who for who, _ in found):
            print(f"{who:>20}  {told(found[who, metric])}")
        for other in ("alone", "teacher", "resnet10t, random"):
            above = found["student", metric] - found[other, metric]
            print(f"{'student above ' + other:>32}  {told(above, '+')}")


if __name__ == "__main__":
    main()
