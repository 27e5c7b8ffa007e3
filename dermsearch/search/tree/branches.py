"""From proposals to nodes of the tree: a stage with the rate chosen for it, behind the segments that it is cut into.

A rate is chosen for a prefix on the study's first seed. The other seeds take it over, so that replicates are of the
same settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.fit.rate import trainings
from dermsearch.search.space.cost import relative_cost
from dermsearch.search.space.proposal import Proposal, Values
from dermsearch.search.space.space import Space
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.node import Node
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.keys import segment_key, stage_key
from dermsearch.study.config import Search

FEW = 0.1  # of the training images that a fit sees in an epoch, before one has been measured


class Branches:
    """Makes each node once."""

    def __init__(self, space: Space, tree: Tree, judges: Judges, search: Search) -> None:
        self.space, self.tree, self.judges, self.first_seed = space, tree, judges, search.seeds[0]
        self.all_pruned = search.replicates == "all"  # seeds that come later are not
        self.rates: dict[Proposal, float] = {}  # of the last stage of a prefix, where it was chosen
        self._stages: dict[tuple[str, str, Values], Node] = {}
        self._settings: dict[tuple[str, Values], tuple[dict[str, Any], float]] = {}

    def path(self, proposal: Proposal, seed: int) -> list[Node]:
        """The stages of a proposal with that seed, up to the first whose rate is still to be chosen."""
        nodes, at = [], self.tree.start(seed, proposal.root)
        for depth, task in enumerate(proposal.curriculum, start=1):
            values = proposal.own(task)
            if task in self.space.selections:
                rate = self.rates.get(proposal.prefix(depth))
                if rate is None:
                    break
                values = with_rate(values, task, rate)
            if (at.key, task, values) not in self._stages:
                self._stages[at.key, task, values] = self._stage(at, task, values)
            at = self._stages[at.key, task, values]
            nodes.append(at)
        return nodes

    def candidates(self, prefix: Proposal, parent: Node) -> list[Node]:
        """For the last task of a prefix, the segments of which one goes on, from the smallest rate to the largest."""
        task = prefix.curriculum.last
        chosen = self.space.selections[task]
        found = []
        for rate in sorted(chosen.rates):
            values = with_rate(prefix.own(task), task, rate)
            found.append(self._cut(parent, task, values, [chosen.epochs], chosen.by == "probe"))
        return found

    def _stage(self, parent: Node, task: str, values: Values) -> Node:
        settings, cost = self._settings_of(task, values)
        epochs = settings["train"]["epochs"]
        at, key = parent, self._key(parent, task, settings)
        if task in self.space.selections and parent.seed == self.first_seed:
            chosen = self.space.selections[task]
            at = self._cut(at, task, values, [chosen.epochs], chosen.by == "probe")
        rungs = self.space.rungs(task, epochs)
        if rungs and (self.all_pruned or parent.seed == self.first_seed):
            at = self._cut(at, task, values, rungs)
        return self.judged_by_fits(self.tree.child(at, key, task, settings, cost * (epochs - at.until) / epochs))

    def _cut(self, at: Node, task: str, values: Values, ends: Iterable[int], judged: bool = True) -> Node:
        """The last of the segments that end with these epochs, begun where `at` ends."""
        settings, cost = self._settings_of(task, values)
        stage = self._key(at.origin if at.until else at, task, settings)
        for end in ends:
            share = (end - at.until) / settings["train"]["epochs"]
            about = {"until": end, "stage": stage, "judged": judged}
            at = self.tree.child(at, segment_key(stage, end), task, settings, cost * share, **about)
            self.judged_by_fits(at)
        return at

    def judged_by_fits(self, node: Node) -> Node:
        """The same, with a leaf for each predictor that is trained from it."""
        for judge in self.judges.fits_of(node):
            fit = PROTOCOLS.find(judge.protocol)
            config = fit.Config.model_validate(judge.config)
            train = fit.recipe(config)
            few = {"data": judge.data, "labelled": judge.labelled, "draw": judge.draw}
            settings = {"config": judge.config, "train": train, **few}
            if judge.source:
                settings["source"] = judge.source
            cost = train["epochs"] * trainings(config) * FEW  # in images that it is not known how many there are
            self.tree.child(node, self.judges.fit_key(node, judge), judge.protocol, settings, cost, judge=judge)
        return node

    def _key(self, parent: Node, task: str, settings: dict[str, Any]) -> str:
        version, precision = self.space.tasks[task].version, self.judges.precision
        return stage_key(parent.key, task, version, settings, precision, parent.seed)

    def _settings_of(self, task: str, values: Values) -> tuple[dict[str, Any], float]:
        """A task's settings, checked once for all of its stages, and what such a stage costs."""
        if (task, values) not in self._settings:
            settings = self.space.settings(task, dict(values))
            if self.space.tasks[task].tables:
                settings["metadata"] = list(self.judges.main.data.metadata)
            self._settings[task, values] = settings, relative_cost(self.space, task, settings)
        return self._settings[task, values]


def with_rate(values: Values, task: str, rate: float) -> Values:
    """The same with a learning rate."""
    return (*values, (f"{task}.lr", rate))
