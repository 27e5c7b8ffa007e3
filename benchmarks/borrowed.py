"""What borrowed rows are worth: on built-in patients whose own tables nobody reads, against random rows and means.

    python benchmarks/borrowed.py [--cases 1200] [--target 1600] [--epochs 15] [-k 1] [--folder F]

SLIMP is trained on built-in patients (seed 0). Others (seed 1) borrow the rows of those that look most alike to it. A
linear probe of the eight labels then learns from the training cases of the others, from the table alone and from image
and tables together, and is judged on their validation cases: mean AUC over the labels, and what the borrowed rows are
above each control, on the same resamples of patients. `own` are the rows that were there to be known.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from dermsearch.data.open import open_cases
from dermsearch.evaluate.base import Given
from dermsearch.evaluate.linear import Linear, LinearConfig
from dermsearch.metrics import case_weights, summary, whole
from dermsearch.results import load
from dermsearch.run.run import run_study
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.data import Data, People
from dermsearch.work.borrow import Lending, borrow, path_of
from dermsearch.work.eye import open_eye
from dermsearch.work.features import look

NAMES = ("age", "sex", "skin_type", "lesions", "site", "elevation", "diameter", "brightness", "redness", "variation")
NAMES += ("elongation", "border", "colour")
KINDS = ("nearest", "random", "means", "own")


def trained(folder: Path, cases: int, epochs: int) -> str:
    """The key of a SLIMP stage on built-in patients."""
    study = Study.model_validate(
        {
            "name": "lenders",
            "data": {"cases": cases, "size": 32, "drawn": {}, "metadata": list(NAMES)},
            "encoder": {"name": "resnet10t"},
            "curriculum": {"tasks": {"slimp": {"lesions": 4, "scale": 0.8}}, "length": [1, 1]},
            "train": {"epochs": epochs, "batch": 64, "lr": 1e-3, "precision": "fp32"},
            "downstream": {"own_table": {}, "linear": {"c": 0.1}},
            "compute": {"engine": "inline", "store": str(folder / "store")},
        }
    )
    run_study(study, folder / "lenders", None, Console(quiet=True))
    results = load(folder / "lenders")
    scores = results.pandas("scores").query("protocol == 'own_table' and `class` == ''")
    print(scores[["curriculum", "metric", "value", "ci_low", "ci_high", "n"]].to_string(index=False))
    return str(results.pandas("stages").query("depth == 1").key.iloc[0])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1200)
    parser.add_argument("--target", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("-k", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        key = trained(folder, given.cases, given.epochs)
        data = Data(cases=given.target, size=32, seed=1, drawn=People(), metadata=NAMES)
        lenders = open_cases(Data(cases=given.cases, size=32, drawn=People()), folder / "store" / "data")
        target = open_cases(data, folder / "store" / "data")
        eye, rows = open_eye(str(folder / "store"), key, (target, lenders)), folder / "rows.arrow"
        borrow(target, lenders, eye, Lending(k=given.k), rows)
        artifact = StageStore(str(folder / "store")).artifact(key)
        found: dict[tuple[str, str], np.ndarray] = {}
        for kind in KINDS:
            laid = data if kind == "own" else data.model_copy(update={"table": str(path_of(rows, kind))})
            cases, cpu = open_cases(laid, folder / "store" / "data"), torch.device("cpu")
            looked = look(eye.encoders, cases, laid, cases.split("train"), "val", cpu, "fp32")
            weights = case_weights(looked.features.heldout_groups)
            for features in ("table", "full", "image"):
                seen = Given(looked.features.blind(), artifact, looked.images)
                said = Linear().predict(seen, LinearConfig(features=features, c=0.1), 0)
                truth = looked.features.heldout_labels
                each = [whole("auc", truth[label], said[label], weights) for label in said]
                found[features, kind] = np.mean(each, axis=0)
    print(
        f"AUC of {len(looked.features.heldout)} validation cases of others, mean of {len(said)} labels, k = {given.k}"
    )
    for features in ("table", "full"):
        for kind in KINDS:
            print(f"{features:>6} {kind:>8}  {told(found[features, kind])}")
        for kind in ("random", "means"):
            print(f"{features:>6}  nearest above {kind}: {told(found[features, 'nearest'] - found[features, kind])}")
        above = told(found[features, "nearest"] - found["image", "own"])
        print(f"{features:>6}  nearest above the image alone, {told(found['image', 'own'])}: {above}")


def told(values: np.ndarray) -> str:
    """A number with its interval."""
    value, low, high = summary(values)
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low is not None else f"{value:.3f}"


if __name__ == "__main__":
    main()
