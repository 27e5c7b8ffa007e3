"""Does a run of many stages grow? Memory, open files, threads, shared memory and processes, stage by stage.

    python benchmarks/soak.py --engine inline
    python benchmarks/soak.py --engine ray --stages 300

A study of one task with many rates on a tiny data set: every stage is trained and judged for real. What the run and all
of its processes hold is measured after every stage; between the hundredth and the last it may grow by no more than is
printed. Exit code 1 if it does.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from dermsearch.run.run import run_study
from dermsearch.search.tree.driver import Driver
from dermsearch.study.load import load_study
from dermsearch.work.record import Record

FROM, WINDOW = 100, 21  # the stage from which nothing grows; how many looks are taken together, by their median
GROWTH = 0.05  # of memory


@dataclass(frozen=True)
class Held:
    """What a run's processes hold together."""

    memory: float  # MB: resident and not shared with others
    files: int
    threads: int
    shared: float  # MB in /dev/shm
    processes: int


def held(root: int) -> Held:
    """Of a process and all below it."""
    memory = files = threads = 0
    family = tree(root)
    for pid in family:
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            resident, of_files = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
            memory += (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(f"/proc/{pid}/fd"))
            threads += len(os.listdir(f"/proc/{pid}/task"))
    about = os.statvfs("/dev/shm")
    return Held(memory / 1e6, files, threads, (about.f_blocks - about.f_bfree) * about.f_frsize / 1e6, len(family))


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(Path(f"/proc/{int(entry)}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def study_of(stages: int, engine: str, store: Path) -> dict[str, Any]:
    """So many stages: a task at as many rates."""
    rates = [round(0.01 * (1 + n / stages), 6) for n in range(stages)]
    return {
        "name": "soak",
        "data": {"cases": 40, "size": 32},
        "encoder": {"name": "test_resnet"},
        "curriculum": {"tasks": {"rotation": {"lr": {"choice": rates}}}, "length": [1, 1]},
        "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
        "downstream": {"knn": {"k": 5}},
        "objective": {"protocol": "knn"},
        "compute": {"engine": engine, "store": str(store), "threads": 1},
    }


def soak(stages: int, engine: str, folder: Path, look: Callable[[int, Held], None]) -> list[Held]:
    """Run it; what is held after every stage."""
    found: list[Held] = []
    done = Driver.done

    def noted(self: Driver, record: Record) -> None:
        done(self, record)
        found.append(held(os.getpid()))
        look(len(found), found[-1])

    Driver.done = noted  # type: ignore[method-assign]
    try:
        study = load_study(study_of(stages, engine, folder / "store"))
        outcome = run_study(study, folder / "out", None, Console(file=io.StringIO()))
    finally:
        Driver.done = done  # type: ignore[method-assign]
    assert not outcome.failed, outcome.failed
    return found


def grown(found: list[Held], start: int) -> list[tuple[str, float, float, bool]]:
    """What there was around that stage and at the end, by the median of some looks, and whether that is too much."""
    rows = []
    for field in fields(Held):
        values = [getattr(each, field.name) for each in found]
        before, after = median(values[start : start + WINDOW]), median(values[-WINDOW:])
        bound = before * (1 + GROWTH) if field.name == "memory" else before + (0.1 if field.name == "shared" else 0)
        rows.append((field.name, before, after, after > bound))
    return rows


def main() -> None:
    """Print what was held, and what has grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="inline", choices=["inline", "ray"])
    parser.add_argument("--stages", type=int, default=300)
    given = parser.parse_args()
    start, began = min(FROM, given.stages // 3), time.perf_counter()

    def look(n: int, now: Held) -> None:
        if n % 50 == 0:
            print(f"  stage {n:>3}, {time.perf_counter() - began:.0f} s: {now}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        found = soak(given.stages, given.engine, Path(folder), look)
    rows = grown(found, start)
    for name, before, after, wrong in rows:
        bound = f"at most +{GROWTH:.0%}" if name == "memory" else "no more"
        print(
            f"{name:>10}: {before:10.1f} at stage {start}, {after:10.1f} at stage {len(found)} ({bound})"
            + " GREW" * wrong
        )
    sys.exit(1 if any(wrong for *_, wrong in rows) else 0)


if __name__ == "__main__":
    main()
