"""Stages until the best curriculum is found, without training: on the papers' tables and on made-up ones.

    python benchmarks/replay.py [--repeats 200] [--few 20] [--tasks 4 5 6 8] [--only WORD] [--encodings | --learn]

Every repeat has a seed, an order of tasks and, of the made-up tables, a table of its own (see order_family.py).
"shared" counts a stage once, however many curricula begin with it; "alone" trains every proposal whole. TPE takes
seconds where the others take milliseconds, so on made-up tables it is repeated only --few times. Searches have the
default settings of a study. The exit code is 1 if a limit was missed; each is printed with what was reached.
`--encodings` compares ways to write an order for TPE instead. `--learn` tells what curriculum_prior needs when it has
learnt from another table: each of the papers' and of HAM10000's own study from each other, and made-up ones from the
same tasks measured again (two points of luck), from other tasks of the same kind, and from tasks of the kind that
misleads most.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from order_family import ADVERSARIAL, STRUCTURED, order_family

from dermsearch.curriculum import Curriculum
from dermsearch.search.propose.by_optuna import TPE
from dermsearch.search.propose.encodings import Codes, Encoding, Slots
from dermsearch.search.propose.replay import replay
from dermsearch.search.propose.tables import Table, read_table
from dermsearch.search.space.proposal import Choices
from dermsearch.study.config import Search

SAMPLERS = ("grid", "random", "tpe", "curriculum_prior")
PAPERS = ("aiseeme_table1", "aiseeme_table2")
HAM10000 = str(Path(__file__).parents[1] / "results" / "ham10000")
LONGEST = 3
Draw = Callable[[int], Table]


class Keys:
    """Random keys: a number for every task; the largest that may come next comes next."""

    def distributions(self, space: Choices) -> dict:
        from optuna.distributions import FloatDistribution

        return {f"key_{task}": FloatDistribution(0, 1) for task in space.tasks}

    def read(self, space: Choices, params: dict) -> Curriculum:
        curriculum = Curriculum()
        for left in reversed(range(params["length"])):
            allowed = [t for t in space.may_follow(curriculum, left=left) if t not in curriculum]
            curriculum = curriculum.then(max(allowed, key=lambda t: params[f"key_{t}"]))
        return curriculum

    def write(self, space: Choices, curriculum: Curriculum) -> dict:
        order = [*curriculum, *(t for t in space.tasks if t not in curriculum)]
        return {f"key_{task}": 1 - (i + 0.5) / len(order) for i, task in enumerate(order)}


def costs(
    draw: Draw, sampler: str, repeats: int, sharing: bool = True, learnt: Callable[[int], str] | None = None
) -> np.ndarray:
    """Stages until the best is found, per repeat; perhaps by a sampler that has learnt from another table."""
    found = []
    for seed in range(repeats):
        table = draw(seed)
        search = Search(sampler=sampler, trials=10**5, learn_from=[learnt(seed)] if learnt else [])
        run = replay(table, search, seed, sharing)
        found.append(math.inf if run.found is None else run.found)
    return np.array(found)


def backends(tasks: list[int]) -> dict[str, Draw]:
    """The papers' tables, and one family per kind and number of tasks."""
    found: dict[str, Draw] = {}
    for name in PAPERS:
        table = read_table(name)
        found[name] = lambda seed, table=table: table
    for kind in (*STRUCTURED, *ADVERSARIAL):
        for n in tasks:
            found[f"{kind}, {n} tasks"] = lambda seed, kind=kind, n=n: order_family(kind, n, LONGEST, seed)
    return found


def compare_samplers(found_in: dict[str, Draw], repeats: int, few: int) -> bool:
    """Print the table and the limits; were all of them held?"""
    heads = "".join(f"{name:>24}" for name in SAMPLERS)
    print(
        f"median and 90th percentile of {repeats} repeats ({few} of tpe on made-up tables)\n{'':34}{'whole':>6}{heads}"
    )
    held, ratios = True, []
    said: list[str] = []
    for name, draw in found_in.items():
        whole = sum(map(len, draw(0)))
        shared = {}
        for sharing in (True, False):
            cells = ""
            for sampler in SAMPLERS:
                number = min(few, repeats) if sampler == "tpe" and "," in name else repeats
                if number == 0:
                    cells += f"{'-':>24}"
                    continue
                found = costs(draw, sampler, number, sharing)
                cells += f"{np.median(found):>13.1f} {np.percentile(found, 90):>10.0f}"
                if sharing:
                    shared[sampler] = found
            print(f"{name:26}{'shared' if sharing else 'alone':8}{whole:>6}{cells}", flush=True)
        prior, random = shared["curriculum_prior"], shared["random"]
        fewer = whole / np.median(prior)
        kind = name.split(",")[0]
        if "," not in name:
            limit = 5.0 if name.endswith("1") else 4.0
            held &= report(said, f"{name}: times fewer than every curriculum trained whole", fewer, limit)
        else:
            ratios.append(fewer)
            against, low = np.median(random) / np.median(prior), bound(random, prior)
            if kind in STRUCTURED:
                held &= report(said, f"{name}: times fewer than random (95 % above {low:.2f})", against, 1.5)
            else:  # 'not worse' within what so many repeats can tell
                high = bound(random, prior, 0.95)
                held &= report(said, f"{name}: times fewer than random ({low:.2f} to {high:.2f}), at most", high, 1.0)
    if ratios:
        held &= report(said, "the family's median: times fewer than every one whole", float(np.median(ratios)), 4.0)
    print("\n" + "\n".join(said))
    return held


def bound(random: np.ndarray, prior: np.ndarray, share: float = 0.05) -> float:
    """A bootstrap bound over repeats (a repeat is one table) on the ratio of the medians."""
    draw = np.random.default_rng(0)
    picks = draw.integers(len(prior), size=(2000, len(prior)))
    return float(np.percentile(np.median(random[picks], axis=1) / np.median(prior[picks], axis=1), 100 * share))


def report(said: list[str], what: str, reached: float, limit: float) -> bool:
    """One line per limit."""
    said.append(f"{'held  ' if reached >= limit else 'MISSED'} {what}: {reached:.2f} (limit {limit:g})")
    return reached >= limit


def compare_encodings(found_in: dict[str, Draw], repeats: int) -> None:
    """Stages until TPE finds the best, by how an order is written."""
    kinds: dict[str, Encoding] = {"slots": Slots(), "codes": Codes(), "keys": Keys()}
    print(f"median and mean of {repeats} repeats\n{'':26}" + "".join(f"{name:>16}" for name in kinds))
    for name, draw in found_in.items():
        cells = ""
        for encoding in kinds.values():
            TPE.encoding = encoding
            found = costs(draw, "tpe", repeats)
            cells += f"{np.median(found):>8.1f}{np.mean(found):>8.1f}"
        print(f"{name:26}{cells}", flush=True)


def compare_learning(found_in: dict[str, Draw], repeats: int) -> None:
    """Stages until the best is found, without and with another table."""
    print(f"median and 90th percentile of {repeats} repeats\n{'':26}{'learnt from':>26}{'nothing':>16}{'that':>16}")
    with tempfile.TemporaryDirectory() as folder:

        def written(table: Table) -> str:
            path = Path(folder, "table.csv")
            path.write_text("curriculum,score\n" + "".join(f"{c},{score!r}\n" for c, score in table.items()))
            return str(path)

        for name, draw in found_in.items():
            others: dict[str, Callable[[int], str]] = {}
            if "," in name:
                kind, tasks = name.split(",")[0], int(name.split()[-2])
                others["the same tasks"] = lambda seed, draw=draw: written(luck(draw(seed), seed))
                for other in (kind, "reversed"):
                    others[f"others, {other}"] = lambda seed, other=other, tasks=tasks: written(
                        order_family(other, tasks, LONGEST, 10_000 + seed)
                    )
            else:
                others = {Path(o).name: lambda seed, o=o: o for o in (*PAPERS, HAM10000) if Path(o).name != name}
            without = costs(draw, "curriculum_prior", repeats)
            for other, learnt in others.items():
                with_it = costs(draw, "curriculum_prior", repeats, learnt=learnt)
                cells = (f"{np.median(found):>10.1f}{np.percentile(found, 90):>6.0f}" for found in (without, with_it))
                print(f"{name:26}{other:>26}{''.join(cells)}", flush=True)


def luck(table: Table, seed: int) -> Table:
    """The same, measured again with two points of luck."""
    draw = np.random.default_rng(seed)
    return {curriculum: score + float(draw.normal(0, 2.0)) for curriculum, score in table.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--tasks", type=int, nargs="*", default=[4, 5, 6, 8])
    parser.add_argument("--only", default="", help="only tables with this in their name, such as 'tasks' or 'noise'")
    parser.add_argument("--encodings", action="store_true")
    parser.add_argument("--learn", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    found_in = {name: draw for name, draw in backends(given.tasks).items() if given.only in name}
    if given.encodings:
        compare_encodings(found_in, given.repeats)
        held = True
    elif given.learn:
        table = read_table(HAM10000)
        known = {"ham10000": lambda seed: table} if given.only in "ham10000" else {}
        compare_learning({**known, **found_in}, given.repeats)
        held = True
    else:
        held = compare_samplers(found_in, given.repeats, given.few)
    print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
