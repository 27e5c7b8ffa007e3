"""The same 15 curricula by dermsearch and by plain Ray Tune, on this machine, in one run.

    python benchmarks/tree_vs_trials.py [--warm]

The plain side is what a Tune user would write: a grid over curricula, one trial trains and judges a whole
curriculum, everything else as Tune has it. It uses the same tasks, loop, data and judging. `--warm` gives its trials
warm processes too (reuse_actors=True), so that the tree alone makes the difference.
Prints stages, wall time, their ratio, and what dermsearch spends per stage beside training and judging.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dermsearch.engines.ray_cluster import QUIET

STUDY = "curriculum.yaml"


def by_tree(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """`dermsearch run`, as anybody runs it."""
    command = [sys.executable, "-m", "dermsearch", "run", STUDY, *overrides, "--json"]
    command += [f"compute.store={folder / 'store'}", "--out", str(folder / "out")]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    return {**summary, "wall": time.perf_counter() - began, "stages": summary["stages"]["trained"]}


def one_curriculum(config: dict[str, Any]) -> None:
    """A Tune trial that trains and judges a whole curriculum, stage after stage, and reports its score."""
    from ray import tune

    from dermsearch.work.worker import do

    done = 0
    for job in config["jobs"]:
        record = do({**job, "store": f"{config['folder']}/{config['name']}"})
        assert record["status"] == "done", record
        done += bool(job["task"])
    tune.report({"stages": done})


def by_trials(folder: Path, overrides: list[str], warm: bool) -> dict[str, Any]:
    """The same curricula, each a trial of its own."""
    began = time.perf_counter()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import tune

    from dermsearch.data.open import open_cases
    from dermsearch.search.space.checks import space_of
    from dermsearch.search.tree.branches import Branches
    from dermsearch.search.tree.jobs import Jobs
    from dermsearch.search.tree.judges import Judges
    from dermsearch.search.tree.tree import Tree
    from dermsearch.storage.keys import root_key
    from dermsearch.storage.stages import StageStore
    from dermsearch.study.load import load_study
    from dermsearch.training.precision import resolve

    study = load_study(STUDY, overrides)
    cache = str(folder / "data")
    cases = open_cases(study.data, folder / "data")
    store = StageStore(str(folder / "unused"))
    precision = resolve(study.train.precision, study.compute.gpus)
    space, tree, judges = space_of(study), Tree(), Judges(study, precision)
    made = Jobs(study, judges, store.address, cache, cases.fingerprint, precision)
    branches = Branches(space, tree, precision, study.search)
    root = tree.root(root_key(study.data, cases.fingerprint, study.encoder, 0), 0)
    choices = []
    for proposal in space.every():
        nodes = [root, *branches.path(proposal, root)]
        jobs = [made.of(n) for n in nodes]
        for job in jobs[:-1]:
            job["protocols"] = {}  # only the finished curriculum is judged
        choices.append({"name": "-".join(proposal.curriculum), "jobs": jobs})
    ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    results = tune.Tuner(
        tune.with_resources(lambda c: one_curriculum({**c["curriculum"], "folder": str(folder)}), {"CPU": 1}),
        param_space={"curriculum": tune.grid_search(choices)},
        tune_config=tune.TuneConfig(reuse_actors=warm),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    stages = sum(r.metrics["stages"] for r in results)
    ray.shutdown()
    return {"wall": time.perf_counter() - began, "stages": stages}


def main() -> None:
    """Run both sides and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--warm", action="store_true", help="warm processes for the plain side too")
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as name:
        tree = by_tree(Path(name) / "tree", given.overrides)
        trials = by_trials(Path(name) / "trials", given.overrides, given.warm)
    print(f"{'':24}{'stages':>8}{'wall, s':>10}")
    print(f"{'dermsearch (tree)':24}{tree['stages']:>8}{tree['wall']:>10.1f}")
    print(f"{'plain Ray Tune':24}{trials['stages']:>8}{trials['wall']:>10.1f}")
    print(f"plain / tree            {trials['stages'] / tree['stages']:>8.2f}{trials['wall'] / tree['wall']:>10.2f}")
    spent = tree["overhead_seconds"]
    median, worst, stages = spent["median"], spent["max"], spent["stages"]
    print(f"overhead per warm stage: median {median:.2f} s, worst {worst:.2f} s ({stages} stages)")


if __name__ == "__main__":
    main()
