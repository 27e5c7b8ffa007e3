"""Kill a run again and again, then let it finish: is a finished stage ever trained twice, are the scores the same?

    python benchmarks/interrupted.py search_spaces/curriculum_three.yaml --engine ray --kills 5 [--states]

Runs the study once undisturbed, then in a second store with SIGKILL to the whole run (driver, Ray, workers) at
moments spread over it; with --states at random moments after it has written the state of a stage under way, such as it
writes within epochs where `compute.save_every` is short. Prints what stood when each kill fell, and compares every
weight and every score to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dermsearch.results import load
from dermsearch.storage.stages import state_in

MARK = "DERMSEARCH_RUN_ID"


@dataclass
class Report:
    """What the kills did."""

    # Seconds; nodes, epochs, states that were there, and how many of these were within an epoch.
    kills: list[tuple[float, int, int, int, int]] = field(default_factory=list)
    retrained: list[str] = field(default_factory=list)  # stages whose manifest was written again
    stages: int = 0
    equal: bool = False  # scores
    same_weights: bool = False
    plain_seconds: float = 0.0


def start(study: str, overrides: Sequence[str], folder: Path, mark: str) -> subprocess.Popen[str]:
    """A run in `folder`, all of whose processes carry `mark` in their environment."""
    command = [sys.executable, "-m", "dermsearch", "run", study, *overrides, "--json"]
    command += [f"compute.store={folder / 'store'}", "--out", str(folder / "out")]
    output = (folder / "log.txt").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True, env={**os.environ, MARK: mark})


def marked(mark: str) -> list[int]:
    """The processes that a run consists of, by the mark that they inherited."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_all(mark: str) -> None:
    """SIGKILL, until none is left."""
    while pids := [p for p in marked(mark) if p != os.getpid()]:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def manifests(folder: Path) -> dict[str, str]:
    """Finished stages and what stands in their manifests."""
    return {p.parent.name: p.read_text() for p in (folder / "store" / "stages").glob("*/manifest.json")}


def weights(folder: Path) -> dict[str, dict[str, str]]:
    """Checksums of what finished stages and fits have learnt."""
    kept = ("history", "manifest")
    told = {key: json.loads(text)["files"] for key, text in manifests(folder).items()}
    return {key: {name: s for name, s in files.items() if not name.startswith(kept)} for key, files in told.items()}


def states(folder: Path) -> dict[Path, float]:
    """Of stages under way, and when they were written."""
    found = {}
    for path in (folder / "store" / "partial").glob("*/state.pt"):
        with suppress(FileNotFoundError):  # its stage was finished meanwhile
            found[path] = path.stat().st_mtime
    return found


def within(state: Path) -> bool:
    """Was it saved within an epoch?"""
    return "within" in state_in(state.read_bytes())


def epochs_under_way(folder: Path) -> int:
    """Epochs that unfinished stages have behind them."""
    return sum(len(json.loads(p.read_text())) for p in (folder / "store" / "partial").glob("*/progress.json"))


def scores(folder: Path) -> list[tuple]:
    """Every number of a run, in an order of its own."""
    columns = ["stage", "protocol", "label", "class", "metric", "value", "ci_low", "ci_high"]
    return sorted(map(str, zip(*(load(folder / "out").scores[c].to_pylist() for c in columns), strict=True)))  # type: ignore[arg-type]


def interrupted(study: str, overrides: Sequence[str], kills: int, folder: Path, in_states: bool = False) -> Report:
    """Run plainly, run with kills, compare."""
    dice = random.Random(0)
    report = Report()
    plain, broken = folder / "plain", folder / "broken"
    for each in (plain, broken):
        each.mkdir(parents=True)
    began = time.perf_counter()
    run = start(study, overrides, plain, uuid.uuid4().hex)
    summary = json.loads(run.communicate()[0])
    report.plain_seconds = time.perf_counter() - began
    report.stages = summary["stages"]["trained"]

    known: dict[str, str] = {}
    for k in range(kills):
        mark = uuid.uuid4().hex
        began = time.perf_counter()
        run = start(study, overrides, broken, mark)
        target = 1 + (report.stages + 1) * k // kills  # of the manifests, the root's among them
        before = states(broken)

        def due(before: dict[Path, float] = before, target: int = target) -> bool:
            if in_states:
                return any(when != before.get(path) for path, when in states(broken).items())
            return len(manifests(broken)) >= target

        while run.poll() is None and not due():
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.7 * report.plain_seconds / kills if in_states else 1.1))  # not right behind it
        assert run.poll() is None, "the run was over before it could be killed"
        seconds = time.perf_counter() - began
        kill_all(mark)
        run.wait()
        now, left = manifests(broken), states(broken)
        report.kills.append((seconds, len(now), epochs_under_way(broken), len(left), sum(map(within, left))))
        report.retrained += [key for key, text in known.items() if now.get(key) != text]
        known = now
    run = start(study, overrides, broken, uuid.uuid4().hex)
    run.communicate()
    now = manifests(broken)
    report.retrained += [key for key, text in known.items() if now.get(key) != text]
    report.equal = run.returncode == 0 and scores(plain) == scores(broken)
    report.same_weights = weights(plain) == weights(broken) and len(known) > 0
    return report


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--engine", default="ray", choices=["ray", "inline"])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--states", action="store_true", help="after a state of a stage under way was written")
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*given.overrides, f"compute.engine={given.engine}"]
        report = interrupted(given.study, overrides, given.kills, Path(folder), given.states)
    print(f"engine {given.engine}: {report.stages} stages, undisturbed in {report.plain_seconds:.0f} s")
    for i, (seconds, finished, epochs, under_way, amid) in enumerate(report.kills, start=1):
        there = f"{finished} nodes in the store, {epochs} epochs and {under_way} states of others under way"
        there += f", {amid} of them within an epoch"
        print(f"  kill {i}: after {seconds:5.1f} s, {there}")
    print(f"  finished stages trained again: {len(report.retrained)}")
    print(f"  every score equal to the undisturbed run's: {report.equal}")
    print(f"  every weight equal to the undisturbed run's: {report.same_weights}")
    sys.exit(0 if report.equal and report.same_weights and not report.retrained else 1)


if __name__ == "__main__":
    main()
