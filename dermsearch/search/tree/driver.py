"""The driver of a study: hands out the next missing stage and takes in what became of it.

It knows nothing of Ray or threads; an engine calls `next_job` until it says FINISHED and `done` for every job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.space import Space
from dermsearch.search.tree.admission import Admission
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.budget import Budget
from dermsearch.search.tree.durations import Durations
from dermsearch.search.tree.jobs import Jobs
from dermsearch.search.tree.judges import Judges, Verdict
from dermsearch.search.tree.look_up import LookUp
from dermsearch.search.tree.node import HELD, RUNNING, WAITING, Node, Rank, critical_path
from dermsearch.search.tree.roots import Start, plant
from dermsearch.search.tree.tree import Tree
from dermsearch.search.tree.window import Window
from dermsearch.storage.files import StoreLost
from dermsearch.storage.leases import Claims
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.work.job import Cases, Job
from dermsearch.work.record import MADE, Record

WAIT, FINISHED = "wait", "finished"
LAST = "last"  # of a segment's manifest: what its last epoch came to


class Driver:
    """Tree and stage store of one run."""

    def __init__(
        self,
        study: Study,
        space: Space,
        proposer: Proposer,
        store: StageStore,
        sets: Mapping[str, Cases],
        starts: Sequence[Start],
        cache: str,
        precision: str,
        budget: Budget | None = None,
        claims: Claims | None = None,
        rank: Rank = critical_path,
    ) -> None:
        self.study, self.space, self.proposer, self.store = study, space, proposer, store
        self.claims, self.budget = claims, budget or Budget()
        self.on_change: Callable[[Node], None] = lambda node: None
        self.durations = Durations()
        self.tree = Tree(rank, self.durations.expected)
        planted = plant(self.tree, study, next(iter(sets.values())), starts)
        self.judges = Judges(study, sets, precision)
        self.look_up = LookUp(store, self.judges)
        self.jobs = Jobs(study, self.judges, store.address, cache, planted)
        gpus = study.compute.gpus * study.compute.workers
        self.admission = Admission(self.tree, self.budget, self.look_up, self.durations, gpus)
        branches = Branches(space, self.tree, self.judges, study.search)
        for root in self.tree.roots:
            for fit in branches.judged_by_fits(root).fits:
                self.tree.grant(fit)  # nobody asks a budget for the judging of a root
        self.window = Window(study, proposer, branches, self.admission, store)
        self.verdicts: dict[str, list[Verdict]] = {}  # by node key
        self.over = False
        self.stopped = ""  # why the run cannot go on, though nothing failed

    def left(self) -> list[Node]:
        """The stages that were proposed and are not finished: at the end those that the budget had no room for."""
        return [n for n in self.tree.stages() if n.status == WAITING]

    # What is next ------------------------------------------------------------------------------------------

    def next_job(self) -> Job | str:
        """A job, WAIT while others must finish first, or FINISHED."""
        try:
            node = self._claimed()
        except StoreLost as error:
            self.stopped, node = str(error), FINISHED
        if isinstance(node, str):
            return node
        self.tree.begin(node)
        if node.booked or node.of_root:
            self.budget.pay(node.key)
        self.on_change(node)
        return self.jobs.of(node)

    def idle(self) -> bool:
        """Is everything that is asked for in the store already?"""
        return self._next_node() == FINISHED

    def _claimed(self) -> Node | str:
        """The next node that no other run works on."""
        while not self.stopped:
            node = self._next_node()
            if isinstance(node, str) or self.claims is None or self.claims.take(node.key):
                return node
            self.tree.begin(node, HELD)
        return FINISHED

    def _next_node(self) -> Node | str:
        """The next node that somebody must work on, past all that the store has."""
        for key in self.claims.freed() if self.claims else ():
            self.tree.release(self.tree.nodes[key])  # finished by another run, or never to be
        while True:
            self.window.move()
            node = self.tree.ready()
            if node is not None:
                if self._take_from_store(node):
                    continue
                # What is trained is judged, whatever the time.
                if node.kind in ("stage", "segment") and self.admission.time_is_up():
                    self.tree.leave(node)  # what the store has of others is free, so go on looking
                    continue
                return node
            if self.admission.turn_away():
                continue
            if self.tree.running():
                return WAIT
            if self.over or not self.window.go_on():
                self.over = True
                self.window.end()
                self.proposer.end()
                return FINISHED

    # What became of it -------------------------------------------------------------------------------------

    def done(self, record: Record) -> None:
        """What a worker says of its job."""
        node = self.tree.nodes[record.key]
        self.store.notes += record.notes
        if node.status != RUNNING:
            return  # a second report of the same stage
        if record.status == "stopped":  # the store is full or out of reach: no stage failed, but none can go on
            self.stopped = self.stopped or record.error
            return
        node.record |= {name: value for name, value in record if value is not None}
        try:
            if record.status == "failed" and not self._trained(node):
                self.admission.settle_failed(node)
                self.tree.fail(node, record.error)
                self._fail_to_judge(node)
            else:
                self._finish(node, record.reused, self._heard(node, record))
        except StoreLost as error:
            self.stopped = str(error)
            return
        if self.claims:
            self.claims.drop(record.key)
        self.on_change(node)

    def _trained(self, node: Node) -> bool:
        """Is it there, so that only its judging can have failed?"""
        return node.kind != "segment" and self.store.manifest(node.key) is not None

    def _heard(self, node: Node, record: Record) -> list[Verdict]:
        """What became of its judgements: the store has those that were made, the record tells why others were not."""
        told = {judged.key: judged for judged in record.judged}
        verdicts = []
        for verdict in self.look_up.verdicts(node):
            judged = told.get(self.judges.key(node, verdict.judge))
            if verdict.judgement is None and judged is not None and judged.status == "done":
                raise self.store.gone(f"scores/{judged.key}.json")  # it was made, so this says nothing of the stage
            reason = "" if verdict.judgement else (judged.reason if judged else record.error) or verdict.reason
            about = (judged.reused, judged.traceback) if judged else (False, record.traceback)
            verdicts.append(Verdict(verdict.judge, verdict.judgement, reason, *about))
        return verdicts

    def _take_from_store(self, node: Node) -> bool:
        stored = self.look_up.take(node)
        if stored is None:
            return False
        node.record |= {k: stored.manifest[k] for k in (*MADE, LAST) if k in stored.manifest}
        if node.key not in self.budget.paid:
            self.admission.unbook(node)  # another run has trained it meanwhile
        self._finish(node, True, stored.verdicts)
        self.on_change(node)
        return True

    def _finish(self, node: Node, reused: bool, verdicts: list[Verdict]) -> None:
        """It is trained and judged, by whomever."""
        self.verdicts[node.key] = verdicts
        self.tree.done(node, reused)
        self._value(node)
        if self.durations.learn(node):
            self.tree.expect_anew()
        if node.task:
            self.admission.settle(node)

    def _fail_to_judge(self, fit: Node) -> None:
        """A fit that failed is a judgement that was not made."""
        if fit.judge is not None:
            self.verdicts[fit.key] = [Verdict(fit.judge, None, fit.error, False, fit.record.get("traceback", ""))]
            self._value(fit)

    def _value(self, node: Node) -> None:
        """Note what it is worth by the study's objective, of a fit what that makes of the stage that it is of."""
        of = node.parent if node.judge is not None and node.parent is not None else node
        verdicts = [v for each in (of, *of.fits) for v in self.verdicts.get(each.key, ())]
        of.value, of.high = self.judges.value(verdicts)
        lost = (v for v in verdicts if v.judge in self.judges.wanted and v.judgement is None)
        of.unjudged = next((f"{v.judge}: {v.reason}" for v in lost), "")
