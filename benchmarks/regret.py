"""How much is lost by searching instead of training everything? Every curriculum of four tasks, really trained.

    python benchmarks/regret.py STORE [--epochs 4] [--seeds 3] [--searches 200] [--keep FOLDER] [--anew]

STORE is a case store (`dermsearch data prepare ham10000 PATH -o STORE --side 64 --split train=0.15,val=0.25,test=0.6`
has 1,500 training images). Trains the whole tree of all curricula of up to three tasks with every seed. Then samplers
search it, again and again, for a third of its stages: what a search would have trained is known by then, so it is
looked up (`dermsearch.search.propose.replay`), every curriculum with all of its seeds. A search ends with the best it
has seen.
With --anew one search by curriculum_prior is really run, with that budget and a store of its own. What it has chosen
is valued by the tree. It must come to the tree's scores if --threads is the tree's: other numbers round otherwise.

Regret is how far the objective of that curriculum lies below the best of the whole tree, for every training seed as a
mean over the searches; the interval is Student's over the training seeds, so it tells what the best owes to luck.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev, variance
from typing import Any

from rich.console import Console
from scipy.special import stdtrit

from dermsearch.curriculum import Curriculum
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.run.run import run_study
from dermsearch.search.propose.replay import replay
from dermsearch.study.config import Search, Study

TASKS: dict[str, dict[str, Any]] = {
    "relative_location": {"lr": 0.05},
    "moco_v2": {"lr": 0.03, "queue": 512, "momentum_encoder": 0.99},
    "odc": {"lr": 0.01, "clusters": 16},
    "rotation": {"lr": 0.05},
}
WAYS = (("curriculum_prior", 1), ("curriculum_prior", 4), ("tpe", 1), ("random", 1), ("grid", 1))  # sampler, lag
Scores = dict[str, dict[int, float]]  # of each curriculum by training seed


def study(given: argparse.Namespace, store: str = "store", **search: Any) -> Study:
    """All curricula of up to three of the tasks, or a search through them."""
    raw = {
        "name": "regret",
        "data": {"source": "store", "path": str(given.store.absolute()), "size": given.size},
        "encoder": {"name": given.encoder},
        "curriculum": {"tasks": TASKS, "length": [1, 3]},
        "train": {"epochs": given.epochs, "batch": given.batch},
        "downstream": {"linear": {}},
        "objective": {"protocol": "linear", "metric": "balanced_accuracy", "label": given.label},
        "search": {"seeds": list(range(given.seeds)), **search},
        "compute": {"engine": "inline", "threads": given.threads, "store": str(given.keep / store)},
        "logging": [],
    }
    return Study.model_validate(raw)


def train(wanted: Study, out: Path) -> tuple[Scores, float]:
    """Train what the study's store does not have: the scores of each curriculum with all seeds, and the seconds."""
    run_study(wanted, out, None, Console(stderr=True))
    found = load(out)
    rows = [row for row in leaderboard(found) if row.length and len(row.seeds) == len(wanted.search.seeds)]
    scores = {row.curriculum: dict(zip(row.seeds, row.values, strict=True)) for row in rows}
    return scores, float(found.pandas("stages")["seconds"].sum())


def anew(given: argparse.Namespace, truth: Scores, goal: str, whole: float) -> int:
    """Really run one search with a third of the stages: 0 where it comes to the scores of the tree."""
    stages = len(truth) // 3 * given.seeds
    wanted = study(given, "store-anew", sampler="curriculum_prior", budget={"stages": stages})
    found, seconds = train(wanted, given.keep / "anew")
    means = {curriculum: fmean(values.values()) for curriculum, values in found.items()}
    best = max(means, key=lambda c: means[c])
    differ = [curriculum for curriculum, values in found.items() if values != truth[curriculum]]
    print(f"\ncurriculum_prior trained anew, {stages} stages, {len(found)} curricula with all seeds")
    print(f"  best {best}: regret {interval(regrets(truth, goal, [best]))} points")
    print(f"  {seconds / 60:.0f} minutes of training where the tree took {whole / 60:.0f}")
    print(f"  scores unlike the tree's: {', '.join(differ) or 'none'}")
    return 1 if differ else 0


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval in points, Student's t."""
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5
    return f"{100 * fmean(values):.2f} [{100 * (fmean(values) - half):.2f}, {100 * (fmean(values) + half):.2f}]"


def compare(given: argparse.Namespace) -> int:
    """Train the tree, search it, and print what the searches lost."""
    truth, seconds = train(study(given), given.keep / "all")
    means = {curriculum: fmean(values.values()) for curriculum, values in truth.items()}
    goal, rising = max(means, key=lambda c: means[c]), sorted(means.values())
    luck = fmean(variance(values.values()) for values in truth.values()) ** 0.5
    whole = len(truth) * given.seeds
    print(f"every curriculum: {whole} stages, {len(truth)} curricula over {given.seeds} seeds")
    print(f"  best {goal}: {interval(list(truth[goal].values()))} % balanced accuracy of {given.label}")
    print(f"  best five {', '.join(f'{100 * m:.2f}' for m in rising[:-6:-1])}, median {100 * median(rising):.2f}")
    print(f"  one curriculum over its seeds: standard deviation {100 * luck:.2f} points")
    print(f"  regret of a curriculum by chance: {interval(regrets(truth, goal, list(truth)))} points")
    budget = len(truth) // 3
    table = {Curriculum.parse(curriculum): mean for curriculum, mean in means.items()}
    known = {mean: curriculum for curriculum, mean in means.items()}
    print(f"\n{given.searches} searches of {budget * given.seeds} stages, {budget} curricula with all seeds")
    for sampler, lag in WAYS:
        search = Search(sampler=sampler, trials=len(table), lag=lag)
        runs = [replay(table, search, seed, to_the_end=True) for seed in range(given.searches)]
        chosen = [known[run.best(budget)] for run in runs]
        worst = max(means[goal] - means[c] for c in chosen)
        print(
            f"  {sampler:<16} lag {lag}: regret {interval(regrets(truth, goal, chosen))} points, "
            f"worst {100 * worst:.2f}, the best found by {chosen.count(goal)}"
        )
    return anew(given, truth, goal, seconds) if given.anew else 0


def regrets(truth: Scores, goal: str, chosen: Sequence[str]) -> list[float]:
    """For every training seed, how far those chosen lie below the best, on average."""
    return [fmean(best - truth[c][seed] for c in chosen) for seed, best in truth[goal].items()]


def main() -> int:
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
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="a folder to continue in")
    parser.add_argument("--anew", action="store_true", help="really run one search too")
    given = parser.parse_args()
    if given.seeds < 2:
        sys.exit("--seeds: an interval needs two seeds at least")
    with tempfile.TemporaryDirectory() as folder:
        given.keep = given.keep or Path(folder)
        return compare(given)


if __name__ == "__main__":
    sys.exit(main())
