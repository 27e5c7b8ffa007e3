"""Learning rates chosen by short segments against every rate trained in full: what it costs, how good the choice is.

    nice python benchmarks/rates.py --epochs 20 --short 2 --seeds 3

Trains every rate of three tasks to the end (that is the truth), then lets `lr: {select: ...}` choose, by the probe and
by the loss, in stores of their own, each seed by itself. Prints the epochs and seconds that each way took, the rates
picked, and the regret: how far the score of the picked rate lies below the best, with the seed that it was picked on
and as a mean over all seeds, which a short segment of one seed cannot know.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from dermsearch.results import load
from dermsearch.run.run import run_study
from dermsearch.study.config import Study

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
TASKS: dict[str, dict[str, Any]] = {"relative_location": {}, "moco_v2": {"queue": 64}, "odc": {"clusters": 8}}


@dataclass
class Way:
    """What one way of finding a rate took, over all seeds, and the rates that it came to."""

    epochs: float = 0.0
    seconds: float = 0.0
    picked: list[float] = field(default_factory=list)  # by seed


def study(task: str, lr: Any, seeds: Sequence[int], epochs: int, cases: int, store: Path) -> Study:
    """One task with that learning rate, or with those to choose from."""
    raw = {
        "name": task.replace("_", "-"),
        "data": {"cases": cases, "size": 32, "modalities": ["derm"]},
        "encoder": {"name": "test_resnet"},
        "curriculum": {"tasks": {task: {**TASKS[task], "lr": lr}}, "length": [1, 1]},
        "train": {"epochs": epochs, "batch": 32, "precision": "fp32"},
        "downstream": {"linear": {}},
        "objective": {"label": "mean"},  # over all labels: of one label a score of so few cases is mostly luck
        "search": {"seeds": list(seeds)},
        "compute": {"engine": "inline", "store": str(store)},
        "logging": [],
    }
    return Study.model_validate(raw)


def run(wanted: Study, out: Path) -> tuple[dict[str, Any], dict[tuple[float, int], float]]:
    """Run it; returns its summary, and by rate and seed the scores of what was trained to the end."""
    outcome = run_study(wanted, out, None, Console(file=io.StringIO()))
    results, o = load(out), wanted.objective
    rates = {
        s["key"]: (json.loads(s["settings"])["train"]["lr"], s["seed"])
        for s in results.stages.to_pylist()
        if s["status"] == "done"
    }
    scores = {
        rates[row["stage"]]: row["value"]
        for row in results.scores.to_pylist()
        if row["stage"] in rates and (row["metric"], row["label"], row["class"]) == (o.metric, o.label, "")
    }
    return outcome.summary, scores


def compare(task: str, seeds: Sequence[int], epochs: int, short: int, cases: int, folder: Path) -> None:
    """Train one task in full with every rate, choose in two ways, and print what came of it."""
    whole = study(task, {"choice": list(RATES)}, seeds, epochs, cases, folder / "full")
    summary, truth = run(whole, folder / "out")
    rates = sorted({rate for rate, _ in truth})
    means = {rate: fmean(truth[rate, seed] for seed in seeds if (rate, seed) in truth) for rate in rates}
    best = max(means, key=lambda rate: means[rate])
    ways = {"every rate in full": Way(summary["budget"]["spent"]["epochs"], summary["training_seconds"])}
    for by in ("probe", "loss"):
        way = ways[f"chosen by {by}"] = Way()
        for seed in seeds:
            lr = {"select": list(RATES), "epochs": short, "by": by}
            at = folder / f"{by}{seed}"
            said, found = run(study(task, lr, [seed], epochs, cases, at / "store"), at / "out")
            ((rate, _),) = found
            assert found[rate, seed] == truth[rate, seed], "a chosen rate is trained as it would be alone"
            way.epochs += said["budget"]["spent"]["epochs"]
            way.seconds += said["training_seconds"]
            way.picked.append(rate)
    print(f"\n{task}: balanced accuracy, mean over {len(seeds)} seeds, in full")
    print("  " + "  ".join(f"{rate:g}: {100 * mean:.1f} %" for rate, mean in means.items()) + f"  (best {best:g})")
    full = ways["every rate in full"]
    for name, way in ways.items():
        cost = f"{way.epochs:5.0f} epochs, {way.seconds:5.0f} s of training"
        if not way.picked:
            print(f"  {name:<20} {cost}")
            continue
        own = [max(truth[r, s] for r in rates if (r, s) in truth) for s in seeds]
        lost = fmean(o - truth[r, s] for o, r, s in zip(own, way.picked, seeds, strict=True))
        over = fmean(means[best] - means[r] for r in way.picked)
        chance = fmean(means[best] - mean for mean in means.values())
        print(f"  {name:<20} {cost} ({full.epochs / way.epochs:.1f} times fewer), picked {said_rates(way.picked)}")
        print(
            f"  {'':<20} regret {100 * lost:.1f} points with its own seed, {100 * over:.1f} over all seeds "
            f"(a rate by chance: {100 * chance:.1f})"
        )


def said_rates(picked: Sequence[float]) -> str:
    """The rates by seed."""
    return ", ".join(f"{rate:g}" for rate in picked)


def main() -> None:
    """The three tasks, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--short", type=int, default=2, help="epochs of a segment")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=400)
    given = parser.parse_args()
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            compare(task, range(given.seeds), given.epochs, given.short, given.cases, Path(folder))


if __name__ == "__main__":
    main()
