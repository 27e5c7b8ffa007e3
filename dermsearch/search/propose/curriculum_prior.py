"""Each task alone first, then orders by a model of what papers found about orders.

A curriculum's last step leads from its prefix's score towards what its last task reaches alone. The model is linear:
before anything is known the score is half the one plus half the other. What it is worth to step from a weaker task to
a better one, each last task, each pair of neighbours and the last task's settings are weights as well, learnt as
scores come in, and beforehand from tables that the study names. First goes what promises most improvement per price of
its missing stages; a prefix that is there is free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dermsearch.curriculum import Curriculum
from dermsearch.search.propose.journal import Journal
from dermsearch.search.propose.known import Known, stages
from dermsearch.search.propose.sampler import NOTHING, Sampler
from dermsearch.search.propose.surrogate import Surrogate, expected_improvement
from dermsearch.search.propose.tables import Table, read_table
from dermsearch.search.space.dimensions import ROOT, coded, draw
from dermsearch.search.space.proposal import Choices, Proposal, Values
from dermsearch.study.config import Search

ALONE, PREFIX = 0.5, 0.5  # prior means of the weights: a step ends half-way
DYNAMIC = 4  # features that change with what is known: one, the task alone, the prefix, the rise
ELSEWHERE = 0.1  # observations that a step counts for that was seen in another table
CANDIDATES = 1000  # extensions that are weighed at each depth
FRESH, DRAWS = 8, 128  # settings of a task that are drawn for every proposal, and remembered


@dataclass(frozen=True)
class Candidate:
    """A stage that could be asked for, or one that is there to be built upon. In units of the model."""

    proposal: Proposal
    mean: float
    variance: float = 0.0
    promise: float = 0.0  # expected improvements of the missing stages up to here
    cost: float = 0.0  # the price of those stages


class CurriculumPrior(Sampler):
    """Proposes one curriculum at a time, by all that the known knows."""

    weighs_cost = learns_from = True

    def __init__(self, space: Choices, known: Known, search: Search, journal: Journal) -> None:
        super().__init__(space, known, search, journal)
        self.place = {task: i for i, task in enumerate(space.tasks)}
        by_name = sorted(space.dimensions, key=lambda d: d.name)  # as proposals have them
        self.own = {task: [d for d in by_name if d.task == task] for task in space.tasks}
        self.columns: dict[str, slice] = {}  # of each dimension among the features
        at = DYNAMIC + len(self.place) * (1 + len(self.place))
        for d in space.dimensions:
            self.columns[d.name] = slice(at, at + (len(d.values) if d.kind == "choice" else 2))
            at = self.columns[d.name].stop
        self.start = np.zeros(at)
        self.start[1:3] = ALONE, PREFIX
        self.roots = [d for d in by_name if d.name == ROOT]
        self.learnt = [step for name in search.learn_from for step in self._steps(read_table(name))]
        self.starts = [Proposal(Curriculum(), ((ROOT, root),)) for d in self.roots for root in d.values] or [NOTHING]
        first = space.may_follow(Curriculum(), left=space.length[0] - 1)
        pairs = [(start, task) for task in first for start in self.starts]
        self.unbegun = [(start, task) for start, task in pairs if space.fits(extended(start, task, ()))]
        self.begun: list[Proposal] = []  # of these, the stages that have no score yet
        self.draws: dict[str, list[Values]] = {task: [] for task in space.tasks}
        self.pending: list[Proposal] = []  # stages that were asked for, in that order, and have no score yet
        self.seen: list[Proposal] = []  # stages that have one
        self.following: dict[Curriculum, list[str]] = {}

    def lag(self) -> float:
        """The tasks alone need no answers from one another; all else waits until all of theirs are there."""
        if self.unbegun:
            return math.inf
        values, lost = self.known.values, self.known.failed
        self.begun = [s for s in self.begun if s not in values and s not in lost and not self.known.cut(s)]
        return 1 if self.begun else super().lag()

    def propose(self) -> Proposal | None:
        """A task that nothing has begun with yet, or else what promises most per price."""
        for task, dimensions in self.own.items():
            fresh = [
                tuple((d.name, draw(d, self.random)) for d in dimensions) for _ in range(FRESH if dimensions else 1)
            ]
            self.draws[task] = list(dict.fromkeys([*self.draws[task], *fresh]))[-DRAWS:]
        found = self._begin_with(*self.unbegun.pop(0)) if self.unbegun else self._most_promising()
        if found is None:  # settings that were never drawn
            found = self.first_open()
        if found is not None:
            self.pending += [stage for stage in stages(found) if stage not in self.known.asked]
        return found

    def _begin_with(self, start: Proposal, task: str) -> Proposal:
        """The shortest curriculum that starts with a task; what must follow is drawn."""
        found = extended(start, task, self.draws[task][-1])
        for left in range(self.space.length[0] - 2, -1, -1):
            following = str(self.random.choice(self.space.may_follow(found.curriculum, left=left)))
            found = extended(found, following, self.draws[following][-1])
        self.begun.append(found.prefix(1))
        return found

    def _most_promising(self) -> Proposal | None:
        best, highest = None, -1.0
        for level in self._levels():
            for c in level:
                if c.cost > 0 and len(c.proposal.curriculum) >= self.space.length[0] and self.known.open(c.proposal):
                    # Equals: on the better prefix first, as one would go on from the best that is there; then the seed.
                    equal = self._known(c.proposal) + 1e-3 * self.random.random()
                    worth = c.promise / c.cost * (1 + 1e-9 * equal)
                    if worth > highest:
                        best, highest = c.proposal, worth
        return best

    # The model ---------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Bring the model up to what the known knows."""
        values = self.known.values
        self.seen += itertools.islice(values, len(self.seen), None)
        lost = self.known.failed
        self.pending = [s for s in self.pending if s not in values and s not in lost and not self.known.cut(s)]
        scores = np.array([*values.values()] or [0.0])
        singles = [s for s in self.seen if len(s.curriculum) == 1]
        self.middle = float(np.mean([values[s] for s in singles] or scores))
        self.unit = float(scores.std()) or 1.0
        alone: dict[int, list[float]] = {}
        for stage in singles:
            alone.setdefault(self.place[stage.curriculum.tasks[0]], []).append(self._scaled(values[stage]))
        self.alone = np.array([max(alone.get(i, [0.0])) for i in range(len(self.place))])
        self.usual = np.array([np.mean(alone.get(i, [0.0])) for i in range(len(self.place))])
        rows = [s for s in self.seen if len(s.curriculum) > 1 or self.own[s.curriculum.tasks[0]] or self.roots]
        y = np.array([self._scaled(values[s]) for s in rows]) - self._offsets(rows)
        x = self._features(rows, [self._known(s) for s in rows])
        waiting = self._features(self.pending, [self._known(s) for s in self.pending])
        self.model = Surrogate(x, y, self.start, waiting)
        if self.learnt:
            self.model = self._with_tables(x, y, waiting)

    def _with_tables(self, x: np.ndarray, y: np.ndarray, waiting: np.ndarray) -> Surrogate:
        """The model that has seen the steps of other tables too, as long as scores come out more as that one says."""
        there, told = np.array([x for x, _ in self.learnt]), np.array([y for _, y in self.learnt])
        less = np.full(len(told), ELSEWHERE)
        both = Surrogate(
            np.vstack([there, x]),
            np.concatenate([told, y]),
            self.start,
            waiting,
            np.concatenate([less, np.ones(len(y))]),
        )
        before = Surrogate(there, told, self.start, waiting[:0], less)
        return both if both.evidence - before.evidence >= self.model.evidence else self.model

    def _steps(self, table: Table) -> list[tuple[np.ndarray, float]]:
        """What a table says of last steps: features and score of each, in units of the table's own."""
        singles = [score for curriculum, score in table.items() if len(curriculum) == 1]
        scores = np.array([*table.values()])
        middle, unit = np.mean(singles or scores), float(scores.std()) or 1.0
        scaled = {curriculum: float((score - middle) / unit) for curriculum, score in table.items()}
        found = []
        for curriculum in scaled:
            if len(curriculum) > 1:
                previous, last = curriculum.tasks[-2:]
                told = [Curriculum((previous,)), Curriculum((last,)), curriculum.prefix(len(curriculum) - 1)]
                if all(each in scaled for each in told):
                    found.append((self._step(previous, last, *(scaled[each] for each in told)), scaled[curriculum]))
        return found

    def _known(self, stage: Proposal) -> float:
        """The score that a stage's prefix has, or else what that prefix's last task reaches alone."""
        if len(stage.curriculum) < 2:
            return 0.0
        value = self.known.values.get(stage.prefix(len(stage.curriculum) - 1))
        return float(self.alone[self.place[stage.curriculum.tasks[-2]]]) if value is None else self._scaled(value)

    def _scaled(self, value: float) -> float:
        """A score in units of the model."""
        return (value - self.middle) / self.unit

    def _offsets(self, rows: list[Proposal]) -> np.ndarray:
        """A task alone has no step to explain: its settings explain how it differs from its usual score."""
        return np.array(
            [self.usual[self.place[s.curriculum.tasks[0]]] if len(s.curriculum) == 1 else 0.0 for s in rows]
        )

    def _features(self, rows: list[Proposal], before: Iterable[float]) -> np.ndarray:
        """A row per stage; `before` are the scores of the prefixes."""
        x = np.zeros((len(rows), len(self.start)))
        for i, (stage, score) in enumerate(zip(rows, before, strict=True)):
            if len(stage.curriculum) > 1:
                previous, last = stage.curriculum.tasks[-2:]
                x[i] = self._step(previous, last, self.alone[self.place[previous]], self.alone[self.place[last]], score)
            for d in (*self.roots, *self.own[stage.curriculum.last]):
                x[i, self.columns[d.name]] = coded(d, stage.settings[d.name])
        return x

    def _step(self, previous: str, last: str, before: float, alone: float, score: float) -> np.ndarray:
        """The features of a step between two tasks that reach so much alone, from a prefix of that score."""
        x, n = np.zeros(len(self.start)), len(self.place)
        x[:DYNAMIC] = 1, alone, score, np.sign(alone - before)
        if last in self.place:
            x[DYNAMIC + self.place[last]] = 1
            if previous in self.place:
                x[DYNAMIC + n + n * self.place[previous] + self.place[last]] = 1
        return x

    # The candidates ----------------------------------------------------------------------------------------

    def _levels(self) -> Iterator[list[Candidate]]:
        """All stages worth weighing, depth by depth: those that are there, and what could follow them."""
        self._fit()
        values = self.known.values
        best = max((v for s, v in values.items() if len(s.curriculum) >= self.space.length[0]), default=self.middle)
        self.best = self._scaled(best)
        options = {task: self._options(task) for task in self.space.tasks}
        there: dict[int, list[Candidate]] = {}
        for stage, value in values.items():
            there.setdefault(len(stage.curriculum), []).append(Candidate(stage, self._scaled(value)))
        parents = [Candidate(start, 0.0) for start in self.starts]
        for depth in range(1, self.space.length[1] + 1):
            grown = there.get(depth, []) + self._grow(parents, options)
            yield grown
            room = max(1, CANDIDATES // sum(map(len, options.values())))
            parents = sorted(grown, key=lambda c: -c.mean - math.sqrt(c.variance))[:room]

    def _options(self, task: str) -> list[Values]:
        """The settings that a task could take: the best by the model, the best that are new, and the latest drawn."""
        drawn = self.draws[task]
        if not self.own[task]:
            return drawn
        weights = {d: self.model.weights[self.columns[d.name]] for d in self.own[task]}

        def effect(one: Values) -> float:
            return float(sum(coded(d, v) @ w for (d, w), (_, v) in zip(weights.items(), one, strict=True)))

        tried = {tuple(v for v in s.values if v[0] != ROOT) for s in self.seen if s.curriculum.tasks == (task,)}
        fresh = [one for one in drawn if one not in tried]
        return list(dict.fromkeys([max(drawn, key=effect), max(fresh, key=effect, default=drawn[-1]), drawn[-1]]))

    def _grow(self, parents: list[Candidate], options: dict[str, list[Values]]) -> list[Candidate]:
        """What could follow the parents and has no score yet."""
        found: dict[Proposal, Candidate] = {}  # -> its parent
        for parent in parents:
            for task in self._next(parent.proposal.curriculum):
                for settings in options[task]:
                    stage = extended(parent.proposal, task, settings)
                    if stage not in self.known.values and stage not in self.known.failed:
                        found[stage] = parent
        if not found:
            return []
        rows, above = list(found), list(found.values())
        means, variances = self.model.predict(self._features(rows, [p.mean for p in above]))
        means += self._offsets(rows)
        variances += self.model.weights[2] ** 2 * np.array([p.variance for p in above])
        gains = expected_improvement(means, variances, self.best)
        return [
            self._candidate(stage, parent, mean, variance, gain)
            for stage, parent, mean, variance, gain in zip(
                rows, above, means.tolist(), variances.tolist(), gains.tolist(), strict=True
            )
        ]

    def _candidate(self, stage: Proposal, parent: Candidate, mean: float, variance: float, gain: float) -> Candidate:
        known = self.known
        if not known.sharing:
            return Candidate(stage, mean, variance, gain, parent.cost + known.price(stage))
        if stage in known.asked:
            return Candidate(stage, mean, variance, parent.promise, parent.cost)
        counts = len(stage.curriculum) >= self.space.length[0]
        return Candidate(stage, mean, variance, parent.promise + gain * counts, parent.cost + known.price(stage))

    def _next(self, curriculum: Curriculum) -> list[str]:
        if curriculum not in self.following:
            left = max(0, self.space.length[0] - len(curriculum) - 1)
            self.following[curriculum] = self.space.may_follow(curriculum, left=left)
        return self.following[curriculum]


def extended(proposal: Proposal, task: str, settings: Values) -> Proposal:
    """A proposal with one more task; one that comes again keeps its settings."""
    if task in proposal.curriculum.tasks:
        settings = ()
    return Proposal(proposal.curriculum.then(task), tuple(sorted(proposal.values + settings)))
