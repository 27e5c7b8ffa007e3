"""Does a letter that gives the label away draw a classifier's eye out of the lungs? On drawn chests that is known.

    python benchmarks/attention.py [--cases 900] [--epochs 6] [--seeds 0 1 2]

A ResNet-10-t is fine-tuned to tell any finding from none in hospital `a`, and in `a_marked`, where a letter outside the
lungs follows the label and nothing else differs. Told is the share of its evidence that lies inside the lungs, with an
interval over patients: by hiding patches (occlusion) and by its own map (attention), beside what the lungs cover. The
exit code is 1 unless occlusion tells the two apart, by intervals that do not meet, with every seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.evaluate.base import Features, Images, judge
from dermsearch.models.encoders import Encoders
from dermsearch.study.data import Data

ENCODER, SIDE = "resnet10t", 64
TOLD = {"occlusion": "occlusion", "ail": "attention", "area": "area"}


def any_finding(cases: CaseStore) -> Features:
    """What there is to learn: a finding or none, which is what the letter follows."""
    truth, (train, heldout) = (cases.label("finding") > 0).astype(int), (cases.split("train"), cases.split("val"))
    nothing = [np.zeros((len(rows), 1), np.float32) for rows in (train, heldout)]
    sides = [{"finding": truth[rows]} for rows in (train, heldout)]
    return Features(*nothing, *sides, {"finding": ("none", "any")}, cases.groups()[heldout], "val")


def shares(variant: str, args: argparse.Namespace, seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Where a classifier of that hospital's cases looks, each measure's row by its name."""
    told = {"domain": "chest", "modalities": ["xray"], "cases": args.cases, "size": SIDE, "variant": variant}
    cases = open_cases(Data.model_validate(told), folder)
    encoders = Encoders.random(ENCODER, cases.modalities, "shared", seed).eval()
    rows, cpu = (cases.split("train"), cases.split("val")), torch.device("cpu")
    images = Images(encoders, cases, *rows, Look(SIDE), cpu, nullcontext)
    config = {"head": "finetune", "stride": 8, "epochs": args.epochs, "lr": 2e-3, "images": 120, "probes": 8}
    found = judge(any_finding(cases), "attention", config, seed=seed, images=images).rows
    return {row["metric"]: row for row in found if (row["label"], row["class"]) == ("finding", "")}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=900)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    apart = True
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            found = {variant: shares(variant, args, seed, Path(folder)) for variant in ("a", "a_marked")}
            for variant, rows in found.items():
                each = [f"{name} {said(rows[metric])}" for metric, name in TOLD.items()]
                print(f"seed {seed}  {variant:<8}  {'   '.join(each)}", flush=True)
            apart &= found["a_marked"]["occlusion"]["ci_high"] < found["a"]["occlusion"]["ci_low"]
    return 0 if apart else 1


def said(row: dict[str, Any]) -> str:
    """A share in percent, with its interval where it has one."""
    value = f"{100 * row['value']:.1f}"
    return value if row["ci_low"] is None else f"{value} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
