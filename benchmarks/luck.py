"""How often `explain` tells something where there is nothing to tell: studies of pure luck, some of it handed on.

    python benchmarks/luck.py [--studies 400] [--fast]

Every curriculum of three tasks is worth the same. A stage has luck of its own and a share of its parent's. In a study
that tells anything at all, `explain` was wrong. At most 5 % may, at every share and number of seeds; of one seed none.
The second table is its power: the last task is worth something, and is it told?
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from statistics import fmean

from dermsearch.curriculum import Curriculum
from dermsearch.results.board.leaderboard import ordering
from dermsearch.results.explain.evidence import Evidence, Observed
from dermsearch.results.explain.explain import Explanation, explain
from dermsearch.results.explain.importance import Sample, path_of, places

TASKS = ("a", "b", "c")
CURRICULA = [c for length in (1, 2, 3) for c in itertools.permutations(TASKS, length)]
SHARES = (0.0, 0.3, 0.6, 0.9, 1.0)  # handed on
SEEDS = (1, 2, 3, 5)
LUCK = 0.01  # of a stage
MOST = 0.05


def made(rng: random.Random, seeds: int, handed_on: float, worth: float = 0.0, choices: bool = True) -> Evidence:
    """A study; curricula that end with the first task are worth so much more than the others."""
    values: dict[tuple[str, ...], dict[tuple[str, int], float]] = {c: {} for c in CURRICULA}
    for seed in range(seeds):
        luck: dict[tuple[str, ...], float] = {(): 0.0}
        for c in CURRICULA:
            luck[c] = handed_on * luck[c[:-1]] + rng.gauss(0, LUCK)
            values[c]["", seed] = 0.7 + luck[c] + worth * (c[-1] == TASKS[0])
    single = {c[0]: fmean(v.values()) for c, v in values.items() if len(c) == 1}
    curricula = [Observed(c, v, ordering(Curriculum(c), single)) for c, v in values.items()]
    chosen = {o.tasks: places(o.tasks) for o in curricula} if choices else {}
    samples = [Sample(chosen[o.tasks], o.score, path=path_of(chosen[o.tasks])) for o in curricula if o.tasks in chosen]
    return Evidence("", "", curricula, [], samples)


def told(found: Explanation) -> bool:
    """Is anything said to be told?"""
    return any(effect.told for effect in found.effects)


def rates(studies: int, what: Callable[[Explanation], bool] = told, **options: object) -> Iterator[tuple[float, ...]]:
    """By share handed on: the rates over the numbers of seeds."""
    for share in SHARES:
        yield tuple(
            fmean(what(explain(made(random.Random(f"{share}/{n}/{i}"), n, share, **options))) for i in range(studies))  # type: ignore[arg-type]
            for n in SEEDS
        )


def last_task(found: Explanation) -> bool:
    """Is it told that the first task is worth something as the last one?"""
    return any(e.told for e in found.places if (e.part, e.name) == ("last", TASKS[0]))


def main() -> int:
    """Print both tables; 1 where more is told than may be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--fast", action="store_true", help="without the importance of choices, which takes the time")
    asked = parser.parse_args()
    began, worst = time.perf_counter(), 0.0
    heads = "".join(f"{f'{n} seeds':>10}" for n in SEEDS)
    print(f"{asked.studies} studies of luck alone: told anything, %\n{'handed on':>10}{heads}")
    for share, row in zip(SHARES, rates(asked.studies, choices=not asked.fast), strict=True):
        worst = max(worst, *row)
        print(f"{share:>10}" + "".join(f"{100 * rate:>10.1f}" for rate in row), flush=True)
    for worth in (0.02, 0.04):
        print(
            f"\nthe last task worth {100 * worth:g} points (a stage's luck is {100 * LUCK:g}): told, %\n{'':>10}{heads}"
        )
        for share, row in zip(SHARES, rates(asked.studies // 4, last_task, worth=worth, choices=False), strict=True):
            print(f"{share:>10}" + "".join(f"{100 * rate:>10.1f}" for rate in row), flush=True)
    # Of so many studies a rate of 5 % is seen as up to this.
    bound = MOST + 1.96 * (MOST * (1 - MOST) / asked.studies) ** 0.5
    print(f"\nat most {100 * worst:.1f} %, bound {100 * bound:.1f} %; {time.perf_counter() - began:.0f} s")
    return int(worst > bound)


if __name__ == "__main__":
    sys.exit(main())
