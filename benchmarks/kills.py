"""Kill a whole run at random moments, again and again: are the tables in the end the undisturbed ones?

    python benchmarks/kills.py curriculum.yaml --engine ray --kills 20

Runs the study once in peace, then in a second store with SIGKILL to all of its processes after random times, the same
command again each time; once it has come through, from the beginning in a fresh store, until so many kills have
fallen. Compares every table to the last bit but for what tells the time, and verifies the stores.
Every row names the checkout's commit: leave the checkout alone meanwhile.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.interrupted import kill_all, start
from dermsearch.results import load
from dermsearch.results.tables.schema import SCHEMAS
from dermsearch.storage.stages import StageStore
from dermsearch.upkeep.upkeep import verify

# What two undisturbed runs differ in, too: times, memory, and which run or process did it.
OF_ITS_TIME = {"seconds", "images_per_second", "peak_memory", "reused", "node"}


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Every row of every table, as text, in an order of its own."""
    results = load(folder / "out")
    found = {}
    for name in SCHEMAS:
        rows = getattr(results, name).to_pylist()
        found[name] = sorted(({k: str(v) for k, v in row.items() if k not in OF_ITS_TIME} for row in rows), key=str)
    return found


def difference(name: str, wanted: list[dict[str, str]], found: list[dict[str, str]]) -> list[str]:
    """What differs in a table: the number of rows, the columns, or, where each has the same values, their order."""
    if wanted == found:
        return []
    if len(wanted) != len(found):
        return [f"{name}: {len(found)} rows instead of {len(wanted)}"]
    columns = [k for k in wanted[0] if Counter(row[k] for row in wanted) != Counter(row[k] for row in found)]
    return [f"{name}.{column}" for column in columns] or [f"{name}: the same values in other rows"]


def killed(study: str, overrides: Sequence[str], kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Run in peace, then under fire until so many kills have fallen, in a fresh store whenever a run came through."""
    plain = folder / "plain"
    whole = time.perf_counter()
    run = go(study, overrides, plain)
    run.communicate()
    assert run.returncode == 0, (plain / "log.txt").read_text()
    whole, wanted = time.perf_counter() - whole, tables(plain)
    draw, fell, runs, code = random.Random(seed), 0, 1, 0
    differ: set[str] = set()
    bad: list[str] = []

    def compare(broken: Path) -> None:
        found = tables(broken)
        differ.update(told for name in SCHEMAS for told in difference(name, wanted[name], found[name]))
        bad.extend(damaged(broken))

    broken = folder / "broken1"
    while fell < kills:
        mark = uuid.uuid4().hex
        run = go(study, overrides, broken, mark)
        until = time.perf_counter() + draw.uniform(0.1, 1.0) * whole
        while run.poll() is None and time.perf_counter() < until:
            time.sleep(0.01)
        through = run.poll() is not None
        kill_all(mark)
        run.communicate()
        if through:
            code = code or run.returncode
            compare(broken)
            runs += 1
            broken = folder / f"broken{runs}"
            continue
        fell += 1
        done = len(list((broken / "store" / "stages").glob("*/manifest.json")))
        print(
            f"  kill {fell:>2}: run {runs}, {done} nodes in the store, {len(damaged(broken))} damaged files", flush=True
        )
    last = go(study, overrides, broken)
    last.communicate()
    compare(broken)
    return {
        "seconds": whole,
        "kills": fell,
        "runs": runs,
        "code": code or last.returncode,
        "differ": sorted(differ),
        "damaged": bad,
        "rows": {name: len(rows) for name, rows in wanted.items()},
    }


def go(study: str, overrides: Sequence[str], folder: Path, mark: str = "") -> subprocess.Popen[str]:
    """The run, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return start(study, overrides, folder, mark or uuid.uuid4().hex)


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
    said = f"{found['kills']} kills over {found['runs']} runs, exit code {found['code']}"
    print(f"engine {given.engine}: in peace {found['seconds']:.0f} s; {said}")
    print(f"  rows compared: {', '.join(f'{n} {name}' for name, n in found['rows'].items())}")
    print(f"  what differs: {', '.join(found['differ']) or 'none'}; damaged files: {len(found['damaged'])}")
    sys.exit(1 if found["differ"] or found["damaged"] or found["code"] else 0)


if __name__ == "__main__":
    main()
