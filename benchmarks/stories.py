"""Let everything happen to a stage store, in any order, until so many runs have come through it.

    python benchmarks/stories.py --runs 5000 --seed 1 [--remote]

The machine of states of tests/endurance: runs that are killed, stopped, refused by the disk or deceived by it, files
that are damaged, verified, thrown away. A broken promise is printed as the story that led to it, and is exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pytest
from endurance import command
from endurance.faults import Bucket
from endurance.machine import DONE, Endured, undisturbed
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

PLAIN = settings(
    max_examples=100,
    stateful_step_count=12,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def staged(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Stand-ins, and what can be taken back."""
    with command.stage(folder / "cases"), pytest.MonkeyPatch.context() as patch:
        yield patch


def main() -> None:
    """Print how much happened, and what broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--remote", action="store_true", help="on an object store, not a folder")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest story: takes minutes")
    given = parser.parse_args()
    phases = [Phase.generate, Phase.shrink] if given.shrink else [Phase.generate]
    broken, began = 0, time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        command.stage(Path(folder) / "cases"),
        pytest.MonkeyPatch.context() as p,
    ):
        p.setattr(Endured, "whole", undisturbed(Path(folder) / "whole"), raising=False)
        p.setattr(Endured, "remote", given.remote)
        if given.remote:
            Bucket.instead(p, Path("/"))
        seed = given.seed
        while DONE["runs"] < given.runs:
            seed += 1
            print(f"seed {seed}: {DONE['runs']} runs", flush=True)
            try:
                run_state_machine_as_test(seeded(seed)(Endured), settings=settings(PLAIN, phases=phases))
            except (Exception, command.Hung):
                broken += 1
                print(f"seed {seed}:\n{traceback.format_exc()}", flush=True)
    print(f"{time.perf_counter() - began:.0f} s: {dict(sorted(DONE.items()))}; broken: {broken}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
