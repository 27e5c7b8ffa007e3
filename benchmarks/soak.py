"""Does a run of many stages grow? Memory, open files, threads, shared memory and processes, stage by stage.

    python benchmarks/soak.py --engine inline
    python benchmarks/soak.py --engine ray --stages 300

A study of one task with many rates on a tiny data set: every stage is trained and judged for real. What the run and all
of its processes hold is measured after every stage; between the hundredth and the last it may grow by no more than is
printed. Exit code 1 if it does. What there is more of is named: by the process that holds it, and by its kind.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from dermsearch.run.run import run_study
from dermsearch.search.tree.driver import Driver
from dermsearch.study.load import load_study
from dermsearch.work.record import Record

FROM, WINDOW = 100, 21  # the stage from which nothing grows; how many looks are taken together
GROWTH = 0.05  # of memory
MEASURES = ("memory", "files", "threads", "shared", "processes")


@dataclass(frozen=True)
class Held:
    """What a run's processes hold together."""

    memory: float  # MB: resident and not shared with others
    files: int
    threads: int
    shared: float  # MB in /dev/shm
    processes: int
    names: Counter[str] = field(repr=False)  # the same by name: "thread grpc of raylet", "MB of a worker"


def held(root: int) -> Held:
    """Of a process and all below it."""
    memory, names, family = 0, Counter[str](), tree(root)
    for pid in family:
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            resident, of_files = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
            own = (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
            memory += own
            names.update(kinds(pid))
            names[f"MB of {called(pid)}"] += round(own / 1e6)
    files, threads = (sum(n for name, n in names.items() if name.startswith(kind)) for kind in ("file", "thread"))
    about = os.statvfs("/dev/shm")
    shared = (about.f_blocks - about.f_bfree) * about.f_frsize / 1e6
    return Held(memory / 1e6, files, threads, shared, len(family), names)


def kinds(pid: int) -> Counter[str]:
    """A process's open files and threads, by what they are."""
    of, found = called(pid), Counter[str]()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            path = Path(os.readlink(each).removesuffix(" (deleted)"))
            what = f"{path.parent.name}/*{path.suffix}" if path.is_absolute() else path.name.partition(":")[0]
            found[f"file {what} of {of}"] += 1
    for each in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found[f"thread {(each / 'comm').read_text().strip()} of {of}"] += 1
    return found


def called(pid: int) -> str:
    """The name of a process: its script's or program's. Ray's workers change theirs with what they do."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if words[0].startswith("ray::") and not words[0].endswith("Agent"):
        return "a worker"
    return next((Path(word).name for word in words if word.endswith(".py")), Path(words[0]).name)


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


def level(values: Sequence[float], counted: bool) -> float:
    """What some looks come to: their least of what is counted, their median of memory.

    What comes and goes with a stage is not held: TensorBoard's writer has a thread as long as its stage is trained.
    """
    return min(values) if counted else median(values)


def grown(found: list[Held], start: int) -> list[tuple[str, float, float, bool]]:
    """What there was around that stage and at the end, and whether that is too much."""
    rows = []
    for name in MEASURES:
        values, counted = [getattr(each, name) for each in found], name not in ("memory", "shared")
        before, after = level(values[start : start + WINDOW], counted), level(values[-WINDOW:], counted)
        bound = before * (1 + GROWTH) if name == "memory" else before + (0.1 if name == "shared" else 0)
        rows.append((name, before, after, after > bound))
    return rows


def more(found: list[Held], start: int) -> list[str]:
    """What there is more of at the end, by name."""
    said = []
    for name in sorted({name for each in found for name in each.names}):
        values, counted = [each.names[name] for each in found], not name.startswith("MB")
        before, after = level(values[start : start + WINDOW], counted), level(values[-WINDOW:], counted)
        if after > before:
            said.append(f"{name}: {before:g}, {after:g}")
    return said


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
    for said in more(found, start):
        print(f"      more: {said}")
    sys.exit(1 if any(wrong for *_, wrong in rows) else 0)


if __name__ == "__main__":
    main()
