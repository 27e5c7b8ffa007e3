"""How much is lost by searching instead of training everything? Every curriculum of four tasks, really trained.

    python benchmarks/regret.py STORE [--epochs 4] [--seeds 3] [--searches 20] [--keep FOLDER]

STORE is a case store (`dermsearch data prepare ham10000 PATH -o STORE --side 64 --split train=0.15,val=0.25,test=0.6`
has 1,500 training images). Trains the whole tree of all curricula of up to three tasks with every seed. Then searches
have a third of its stages as their budget, each with a seed of its own; they ask for the same stages, which lie in the
store, so a search takes seconds and finds what it would have found if it had trained them. A search ends with the
curriculum of the best objective among those that all seeds have trained.

Regret is how far the objective of that curriculum lies below the best of the whole tree, for every training seed as a
mean over the searches; the interval is Student's over the training seeds, so it tells what the best owes to luck.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from scipy.special import stdtrit

from dermsearch.config import Study
from dermsearch.results import load
from dermsearch.results.leaderboard import leaderboard
from dermsearch.search.run import run_study

TASKS: dict[str, dict[str, Any]] = {
    "relative_location": {"lr": 0.05},
    "moco_v2": {"lr": 0.03, "queue": 512, "momentum_encoder": 0.99},
    "odc": {"lr": 0.01, "clusters": 16},
    "rotation": {"lr": 0.05},
}
WAYS: dict[str, dict[str, Any]] = {
    "curriculum_prior": {"sampler": "curriculum_prior"},
    "curriculum_prior, leaders": {"sampler": "curriculum_prior", "replicates": "leaders"},
    "random": {"sampler": "random"},
    "random, leaders": {"sampler": "random", "replicates": "leaders"},
}
Scores = dict[str, dict[int, float]]  # of each curriculum by training seed


def study(given: argparse.Namespace, search: dict[str, Any]) -> Study:
    """All curricula of up to three of the tasks, searched in that way."""
    raw = {
        "name": "regret",
        "data": {"source": "store", "path": str(given.store.absolute()), "size": given.size},
        "encoder": {"name": given.encoder},
        "curriculum": {"tasks": TASKS, "length": [1, 3]},
        "train": {"epochs": given.epochs, "batch": given.batch},
        "downstream": {"linear": {}},
        "objective": {"protocol": "linear", "metric": "balanced_accuracy", "label": given.label},
        "search": {"seeds": list(range(given.seeds)), **search},
        "compute": {"engine": "inline", "threads": given.threads, "store": str(given.keep / "store")},
        "logging": [],
    }
    return Study.model_validate(raw)


def run(wanted: Study, out: Path, console: Console) -> tuple[int, Scores]:
    """Run it; returns the stages it asked for, and the scores of what all seeds have trained."""
    spent = run_study(wanted, out, None, console).summary["budget"]["spent"]["stages"]
    rows = [row for row in leaderboard(load(out)) if row.length and len(row.seeds) == len(wanted.search.seeds)]
    return int(spent), {row.curriculum: dict(zip(row.seeds, row.values, strict=True)) for row in rows}


def best(scores: Scores) -> str:
    """The curriculum of the highest mean."""
    return max(scores, key=lambda curriculum: fmean(scores[curriculum].values()))


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval in points, Student's t."""
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5
    return f"{100 * fmean(values):.2f} [{100 * (fmean(values) - half):.2f}, {100 * (fmean(values) + half):.2f}]"


def compare(given: argparse.Namespace) -> None:
    """Train the tree, search it, and print what the searches lost."""
    loud, quiet = Console(stderr=True), Console(file=io.StringIO())
    whole, truth = run(study(given, {"sampler": "grid"}), given.keep / "all", loud)
    goal, budget = best(truth), whole // 3
    means = sorted((fmean(values.values()) for values in truth.values()), reverse=True)
    luck = float(np.mean([np.var(list(values.values()), ddof=1) for values in truth.values()])) ** 0.5
    print(f"every curriculum: {whole} stages, {len(truth)} curricula over {given.seeds} seeds")
    print(f"  best {goal}: {interval(list(truth[goal].values()))} % {given.label}, balanced accuracy")
    print(f"  best five {', '.join(f'{100 * m:.2f}' for m in means[:5])}, median {100 * means[len(means) // 2]:.2f}")
    print(f"  one curriculum over its seeds: standard deviation {100 * luck:.2f} points")
    by_chance = [fmean(truth[goal][s] - truth[c][s] for c in truth) for s in range(given.seeds)]
    print(f"  regret of a curriculum by chance: {interval(by_chance)} points\n\n{given.searches} searches of {budget}")
    for name, search in WAYS.items():
        chosen, stages = [], []
        for seed in range(given.searches):
            asked = {**search, "budget": {"stages": budget}, "sampler_seed": seed}
            spent, found = run(study(given, asked), given.keep / f"{name.replace(', ', '-')}-{seed}", quiet)
            assert all(found[c] == truth[c] for c in found), "a search sees what the whole tree's training gave"
            chosen.append(best(found))
            stages.append(spent)
        regrets = [fmean(truth[goal][s] - truth[c][s] for c in chosen) for s in range(given.seeds)]
        worst = max(fmean(truth[goal].values()) - fmean(truth[c].values()) for c in chosen)
        print(
            f"  {name:<26} {fmean(stages):5.1f} stages, regret {interval(regrets)} points, worst {100 * worst:.2f}, "
            f"the best found by {chosen.count(goal)}",
            flush=True,
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--label", default="diagnosis")
    parser.add_argument("--encoder", default="resnet10t")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="a folder to continue in")
    given = parser.parse_args()
    if given.seeds < 2:
        sys.exit("--seeds: an interval needs two seeds at least")
    with tempfile.TemporaryDirectory() as folder:
        given.keep = given.keep or Path(folder)
        compare(given)


if __name__ == "__main__":
    main()
