"""Kill a whole run at random moments, again and again, until it has come through: are the tables the undisturbed ones?

    python benchmarks/kills.py curriculum.yaml --engine ray --kills 20

Runs the study once in peace, then in a second store with SIGKILL to all of its processes after random times, the same
command again each time. Compares every table to the last bit but for what tells the time, and verifies the store.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.interrupted import kill_all, start
from dermsearch.results import load
from dermsearch.results.tables import SCHEMAS
from dermsearch.search.store import StageStore
from dermsearch.search.upkeep import verify

# What two undisturbed runs differ in, too: times, memory, and which run or process did it.
OF_ITS_TIME = {"seconds", "views_per_second", "peak_memory", "reused", "node"}


def tables(folder: Path) -> dict[str, list[str]]:
    """Every row of every table, in an order of its own."""
    results = load(folder / "out")
    return {
        name: sorted(
            str({k: v for k, v in row.items() if k not in OF_ITS_TIME}) for row in getattr(results, name).to_pylist()
        )
        for name in SCHEMAS
    }


def killed(study: str, overrides: Sequence[str], kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Run in peace, run under fire, compare; kills go on until so many have fallen or the run is through."""
    plain, broken = folder / "plain", folder / "broken"
    for each in (plain, broken):
        each.mkdir(parents=True)
    began = time.perf_counter()
    run = start(study, overrides, plain, uuid.uuid4().hex)
    run.communicate()
    assert run.returncode == 0, (plain / "log.txt").read_text()
    whole, draw, fell = time.perf_counter() - began, random.Random(seed), 0
    while fell < kills:
        mark = uuid.uuid4().hex
        run = start(study, overrides, broken, mark)
        until = time.perf_counter() + draw.uniform(0.1, 1.0) * max(whole / 2, 3.0)
        while run.poll() is None and time.perf_counter() < until:
            time.sleep(0.01)
        through = run.poll() is not None
        kill_all(mark)
        run.communicate()
        if through:
            break
        fell += 1
        done = len(list((broken / "store" / "stages").glob("*/manifest.json")))
        print(f"  kill {fell:>2}: {done} nodes in the store, {len(damaged(broken))} damaged files", flush=True)
    last = start(study, overrides, broken, uuid.uuid4().hex)
    last.communicate()
    one, other = tables(plain), tables(broken)
    return {
        "seconds": whole,
        "kills": fell,
        "code": last.returncode,
        "differ": [name for name in SCHEMAS if one[name] != other[name]],
        "damaged": damaged(broken),
        "rows": {name: len(rows) for name, rows in one.items()},
    }


def damaged(folder: Path) -> list[str]:
    """The files of a run's store that are not as they were written."""
    if not (folder / "store" / "stages").is_dir():
        return []
    return [fault.file for fault in verify(StageStore(str(folder / "store"), create=False))]


def main() -> None:
    """Print what the kills did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--engine", default="ray", choices=["ray", "inline"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*given.overrides, f"compute.engine={given.engine}"]
        found = killed(given.study, overrides, given.kills, Path(folder), given.seed)
    print(
        f"engine {given.engine}: in peace {found['seconds']:.0f} s; {found['kills']} kills, then exit {found['code']}"
    )
    print(f"  rows compared: {', '.join(f'{n} {name}' for name, n in found['rows'].items())}")
    print(f"  tables that differ: {', '.join(found['differ']) or 'none'}; damaged files: {len(found['damaged'])}")
    sys.exit(1 if found["differ"] or found["damaged"] or found["code"] else 0)


if __name__ == "__main__":
    main()
