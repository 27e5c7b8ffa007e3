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

STUDY = "curriculum_three.yaml"


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

    from dermsearch.work.job import Job
    from dermsearch.work.worker import run_job

    done = 0
    for text in config["jobs"]:
        job = Job.model_validate_json(text)
        record = run_job(job.model_copy(update={"store": f"{config['folder']}/{config['name']}"}))
        assert record.status == "done", record
        done += bool(job.task)
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
    from dermsearch.search.tree.roots import Start, plant
    from dermsearch.search.tree.tree import Tree
    from dermsearch.storage.stages import StageStore
    from dermsearch.study.load import load_study
    from dermsearch.training.precision import resolve
    from dermsearch.work.job import Cases

    study = load_study(STUDY, overrides)
    cache = str(folder / "data")
    cases = open_cases(study.main, folder / "data")
    store = StageStore(str(folder / "unused"))
    precision = resolve(study.train.precision, study.compute.gpus)
    sets = {"data": Cases(data=study.main, fingerprint=cases.fingerprint)}
    space, tree, judges = space_of(study), Tree(), Judges(study, sets, precision)
    planted = plant(tree, study, sets["data"], [Start("", study.encoder.names[0])])
    made = Jobs(study, judges, store.address, cache, planted)
    branches = Branches(space, tree, judges, study.search)
    choices = []
    for proposal in space.every():
        *before, last = [tree.start(0), *branches.path(proposal, 0)]
        jobs = [made.of(n).model_copy(update={"judges": ()}) for n in before]  # only the finished one is judged
        choices.append(
            {"name": "-".join(proposal.curriculum), "jobs": [j.model_dump_json() for j in (*jobs, made.of(last))]}
        )
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
