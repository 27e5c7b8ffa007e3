"""Made-up tables of curricula: what the order of tasks could do to a score, by simulating an encoder that learns.

An encoder is a vector of skills. A task teaches some of them, to some degree, and may undo others; a score is what
the skills are worth to the target, in points of a percentage. The searched samplers know nothing of skills, and
nothing here knows of samplers. `order_family(kind, tasks, longest, seed)` draws one table.

structured   overwriting: a task pulls all skills towards its own, so what was last weighs most
             groundwork:  a task teaches well only what the skills before it allow
             crosstalk:   each task undoes part of what particular others taught
adversarial  any_order:   skills add up and saturate; order changes nothing but luck
             reversed:    the first task sets the level, and what is weak alone polishes best
             noise:       every score is luck
"""

from __future__ import annotations

import itertools

import numpy as np

from dermsearch.curriculum import Curriculum

STRUCTURED = ("overwriting", "groundwork", "crosstalk")
ADVERSARIAL = ("any_order", "reversed", "noise")
SKILLS = 6
LUCK = 0.7  # points: the spread of the score of one and the same curriculum over seeds


def order_family(kind: str, tasks: int, longest: int, seed: int) -> dict[Curriculum, float]:
    """The score of every curriculum of up to `longest` of so many tasks."""
    draw = np.random.default_rng([(*STRUCTURED, *ADVERSARIAL).index(kind), tasks, longest, seed])
    teaches = draw.gamma(0.6, size=(tasks, SKILLS))
    teaches /= teaches.sum(axis=1, keepdims=True)
    strength = draw.uniform(0.5, 1.5, tasks)
    worth = draw.dirichlet(np.ones(SKILLS))
    rate = draw.uniform(0.4, 0.8, tasks)
    needs = draw.dirichlet(np.ones(SKILLS), tasks) * draw.uniform(0, 4, (tasks, 1))
    undoes = draw.uniform(0, 0.9, (tasks, tasks)) * (draw.random((tasks, tasks)) < 0.4)
    level, polish = draw.normal(0, 4, tasks), draw.normal(0, 1, tasks)
    scores = {}
    for length in range(1, longest + 1):
        for chain in itertools.permutations(range(tasks), length):
            if kind == "noise":
                score = 65 + draw.normal(0, 3)
            elif kind == "reversed":
                score = 65 + level[chain[0]] + sum(polish[t] - 0.5 * level[t] for t in chain[1:]) / 2
            else:
                score = 50 + 60 * value(kind, chain, teaches * strength[:, None], worth, rate, needs, undoes)
            scores[Curriculum(tuple(f"task{t}" for t in chain))] = float(score + draw.normal(0, LUCK))
    return scores


def value(
    kind: str,
    chain: tuple[int, ...],
    teaches: np.ndarray,
    worth: np.ndarray,
    rate: np.ndarray,
    needs: np.ndarray,
    undoes: np.ndarray,
) -> float:
    """What an encoder is worth to the target after these tasks."""
    skills = np.zeros(SKILLS)
    taught: list[np.ndarray] = []  # by each task so far, where tasks undo one another's
    for i, t in enumerate(chain):
        if kind == "overwriting":
            skills = (1 - rate[t]) * skills + teaches[t] * SKILLS / 3
        elif kind == "groundwork":
            ready = np.exp(-np.maximum(0, needs[t] - 3 * skills).sum())
            skills = skills + teaches[t] * (0.2 + 0.8 * ready)
        elif kind == "crosstalk":
            for earlier, before in enumerate(chain[:i]):
                taught[earlier] = taught[earlier] * (1 - undoes[t, before])
            taught.append(teaches[t])
            skills = np.sum(taught, axis=0)
        else:
            skills = skills + teaches[t]
    return float(worth @ (1 - np.exp(-1.5 * skills)))
