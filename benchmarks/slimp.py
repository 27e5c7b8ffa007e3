"""What SLIMP learns in a few minutes of one processor from built-in patients whose tables follow what was drawn.

    python benchmarks/slimp.py [--cases 4000] [--epochs 20] [--seed 0] [--folder F]

One stage on images of 32 px and their tables. A linear probe of the eight labels reads the image, the image with its
row, the row alone, and only which columns are known, once where values are missing by chance and once where they are
missing by class. Printed: mean balanced accuracy on held-out patients, differences on the same resamples of patients,
how often an image finds its own row, and the two losses beside the floors that equal rows put under them.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from dermsearch.metrics import case_weights, summary
from dermsearch.results import load
from dermsearch.results.tables.measure import Measure
from dermsearch.results.tables.said import said
from dermsearch.run.run import run_study
from dermsearch.study.config import Study

COLUMNS = ["age", "sex", "skin_type", "lesions", "site", "elevation", "diameter", "brightness", "redness", "variation"]
COLUMNS += ["elongation", "border", "colour"]
READ = {"image": "image", "full": "full", "table": "table", "holes": "mask", "holes by class": "mask"}
NAMES = {"holes by class": "told"}  # of data sets
ABOVE = (("slimp", "image", "no pre-training", "image"), ("slimp", "full", "slimp", "image"))
ABOVE += (("slimp", "full", "slimp", "table"),)


def study(cases: int, epochs: int, seed: int, folder: Path) -> Study:
    """The same cases under five names: each is read in another way."""
    slimp = {"weight": 0.5, "temperature": 0.1, "lesions": 4, "table": "lesion", "scale": 0.8}
    data = {
        NAMES.get(name, name): {
            "cases": cases,
            "size": 32,
            "seed": seed,
            "drawn": {"missing": "class" if name in NAMES else "chance"},
            "metadata": COLUMNS,
        }
        for name in READ
    }
    return Study.model_validate(
        {
            "name": "slimp",
            "data": data,
            "encoder": {"name": "test_resnet"},
            "curriculum": {"tasks": {"slimp": slimp}, "length": [1, 1]},
            "train": {"epochs": epochs, "batch": 64, "lr": 2e-3},
            "downstream": {
                **{f"linear@{NAMES.get(name, name)}": {"features": how} for name, how in READ.items()},
                "own_table@image": {},
            },
            "objective": {"protocol": "linear@full"},
            "search": {"seeds": [seed]},
            "compute": {"engine": "inline", "store": str(folder / "store")},
        }
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, began = given.folder or Path(made), time.perf_counter()
        run_study(study(given.cases, given.epochs, given.seed, folder), folder / "results", None, Console(quiet=True))
        seconds, results = time.perf_counter() - began, load(folder / "results")
    found = {}
    for name in READ:
        measure = Measure("linear", "balanced_accuracy", "mean", "val", data=NAMES.get(name, name))
        for judgement in said(results, measure):
            weights = case_weights(judgement.groups)
            found[judgement.curriculum, name] = judgement.scores(measure, weights)
    chance = np.mean([1 / len(label.classes) for label in judgement.labels.values()])
    patients = len(set(judgement.groups))
    print(
        f"{seconds:.0f} s; {len(judgement.groups)} cases of {patients} held-out patients; chance {100 * chance:.1f} %"
    )
    for (curriculum, name), values in found.items():
        if curriculum == "slimp" or name == "image":
            print(f"{curriculum:>16}, {name:<15} {told(values)}")
    for ours, read, theirs, other in ABOVE:
        above = told(found[ours, read] - found[theirs, other], "+")
        print(f"{ours}, {read} above {theirs}, {other}: {above}")
    scores = results.pandas("scores").query("protocol == 'own_table' and curriculum == 'slimp' and `class` != ''")
    own = scores.set_index("metric")
    hit, n = own.value["acc_at_1"], int(own.n["acc_at_1"])
    rank = own.value["mean_rank"]
    print(f"its own row first: {100 * hit:.1f} % of {n}, {hit * n:.0f} times chance; mean rank {rank:.0f}")
    last = json.loads(results.pandas("epochs").iloc[-1].parts)
    print(
        ", ".join(f"{name} {value:.2f}" for name, value in last.items()) + f"; chance of 16 patients {math.log(16):.2f}"
    )


def told(values: np.ndarray, sign: str = "") -> str:
    """Points with their interval."""
    value, low, high = (100 * (math.nan if x is None else x) for x in summary(values))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


if __name__ == "__main__":
    main()
