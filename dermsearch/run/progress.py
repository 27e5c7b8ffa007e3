"""What a running study shows: the tree with its states and scores, live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container
from contextlib import nullcontext, suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Branch

from dermsearch.errors import first_line
from dermsearch.run.loggers import Logger
from dermsearch.run.naming import named, searched
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.node import DONE, DROPPED, FAILED, HELD, PRUNED, RUNNING, WAITING, Node
from dermsearch.storage.files import StoreLost
from dermsearch.words import many

MARKS = {
    WAITING: ("·", "dim"),
    RUNNING: ("●", "cyan"),
    HELD: ("○", "cyan"),
    DONE: ("✓", "green"),
    FAILED: ("✗", "red"),
    PRUNED: ("–", "dim"),
    DROPPED: ("–", "dim"),
}
EVERY = 0.5  # seconds between two looks at the stages under way
SAVE, SHARE = 5.0, 0.05  # seconds between two writings of the tables, and the share of the time that they may take
LINE = 60.0  # seconds between two lines on a stage under way, where there is no terminal
MOST = 60  # stages that the live tree shows; a larger one shows those under way and the best


class Progress:
    """Follows a driver, which calls `changed` at every change of a node, from any thread."""

    def __init__(self, console: Console, driver: Driver, loggers: list[Logger], save: Callable[[], None]) -> None:
        self.console, self.driver, self.loggers, self.save = console, driver, loggers, save
        driver.on_change = self.changed
        self.started = time.perf_counter()
        self.epochs: dict[str, int] = {}  # key -> epochs already logged
        self.spent: dict[str, float] = {}  # key -> the seconds that these took
        self.last: dict[str, dict[str, Any]] = {}  # key -> what the last of them came to
        self.told: dict[str, tuple[float, str]] = {}  # key -> when it was last spoken of, and what was said
        self.judged: dict[str, float] = {}  # key -> since when it is only judged
        self.spoken: float | None = None  # when anything was
        self.finished: set[str] = set()  # keys whose logs are complete
        self.cuts: set[Proposal] = set()  # that were told of
        self.waits: set[str] = set()  # what was said of other runs
        self.stop = threading.Event()
        self.next_save = 0.0
        self.estimated, self.left = 0.0, None  # type: float, float | None

    def __enter__(self) -> Progress:
        self.live: Any = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else nullcontext()
        self.live.__enter__()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop.set()
        self.thread.join()
        self._look()
        self._tell_cuts()
        self.live.__exit__(*error)

    def changed(self, node: Node) -> None:
        """A line per finished stage where there is no terminal; the tables follow every few seconds."""
        self._tell_cuts()
        self._tell_of_store()
        if node.status == RUNNING:
            return
        told = node if node.judge is None or node.status == FAILED else settled(node)
        if told is not None and not self.console.is_terminal:
            self._say(self._name(told), self._state(told), guess=not node.reused)
        for verdict in self.driver.verdicts.get(node.key, ()):
            if verdict.judgement is None and not (node.judge and node.status == FAILED):
                self._say(f"{self._name(node)}, {verdict.judge}", f"failed: {verdict.reason}")
        began = time.perf_counter()
        if began > self.next_save:
            self.save()
            ended = time.perf_counter()
            self.next_save = ended + max(SAVE, (ended - began) / SHARE)

    def _tell_cuts(self) -> None:
        """A line per beginning that was pruned since this was last asked, above the tree where there is one."""
        for cut in list(self.driver.window.cut.values()):
            if cut.behind not in self.cuts:
                self.cuts.add(cut.behind)
                self._say(str(cut.behind.curriculum), cut.why)

    def _tell_of_store(self) -> None:
        """A line per thing in the store that was damaged, and per run that this one waits for."""
        with suppress(IndexError):  # no more, or the other thread that tells of them was faster
            while True:
                self._tell(self.driver.store.notes.pop(0))
        for said in self.driver.claims.waiting().values() if self.driver.claims else ():
            if said not in self.waits:
                self.waits.add(said)
                self._tell(said)

    def _tell(self, said: str) -> None:
        self.console.print(Text(said), highlight=False, soft_wrap=True)

    def _say(self, name: str, state: str, guess: bool = True) -> None:
        """A line: how far the run is, what became of whom, and how long the rest may take.

        What comes from the store says nothing of that: more may lie there.
        """
        (done, total), left = self._counts(), self._left()
        count = f"{total}{'+' if self.driver.window.more else ''}" if total else "?"
        line = f"[{done:>3}/{count}] {clock(time.perf_counter() - self.started)}  {name:<48} {state}"
        if guess and left is not None and done < total:
            line += f"   about {self._rest(left)}"
        self.spoken = time.perf_counter()
        self.console.print(Text(line), highlight=False, soft_wrap=True)

    def _name(self, node: Node) -> str:
        space = self.driver.space
        return named(node, space, self.driver.study.search.seeds) + part(node, space.selections)

    def _tell_of(self, node: Node) -> None:
        """A line per epoch or per minute, whichever is rarer, on a stage under way, and on long judging.

        Of many that take less, one a minute too: a run is not silent for longer.
        """
        now, state = time.perf_counter(), self._state(node)
        when, said = self.told.setdefault(node.key, (now, ""))
        self.spoken = now if self.spoken is None else self.spoken
        judging = self.epochs.get(node.key, 0) >= node.ends
        since = self.judged.setdefault(node.key, now) if judging else now
        if now - min(when, self.spoken) >= LINE and (state != said or judging):
            self.told[node.key] = now, state
            self._say(self._name(node), f"judging, for {clock(now - since)}" if judging and state == said else state)

    def _state(self, node: Node) -> str:
        if node.status == FAILED:
            return f"failed: {node.error}"
        if node.status in (PRUNED, DROPPED):
            return node.error
        if node.status == DONE:
            score = "" if node.value is None else f"{100 * node.value:5.1f} %"
            seconds = node.record.get("seconds") or 0.0
            how = "from the store" if node.reused else f"{seconds:.1f} s" if node.parent else ""
            return f"{score}  {how}"
        where = " in another run" if node.status == HELD else ""
        if node.status in (RUNNING, HELD) and node.task:
            row = self.last.get(node.key, {})
            loss = f", loss {row['loss']:.4g}" if isinstance(row.get("loss"), float) else ""
            spread = f", spread {row['embedding_std']:.2f}" if isinstance(row.get("embedding_std"), float) else ""
            return f"epoch {self.epochs.get(node.key, 0)}/{node.ends}{loss}{spread}{where}"
        return f"judging{where}" if node.status in (RUNNING, HELD) else ""

    def _counts(self) -> tuple[int, int]:
        tree = self.driver.tree
        if tree.wanted or self.driver.study.curriculum.tasks:
            return tree.settled, tree.wanted
        roots = tree.roots  # nothing is ever trained: what there is to do is to judge them
        return sum(root.status in (DONE, FAILED) for root in roots), len(roots)

    def _done(self) -> str:
        """How much of the run is."""
        done, total = self._counts()
        if not total:
            return "no stage is asked for yet"
        whole = f"{total} stages and fits" if self.driver.judges.fits else many(total, "stage")
        return f"{done} of {whole}{' so far' if self.driver.window.more else ''}"

    def _rest(self, left: float) -> str:
        """The seconds that are left, in words: of what is asked for, to which a choice or a search may add."""
        return f"{clock(left)} left for these" if self.driver.window.more else f"{clock(left)} left"

    def under_way(self) -> list[str]:
        """What is being trained or judged, with how far it is, behind how much is finished."""
        running = [node for node in list(self.driver.tree.nodes.values()) if node.status == RUNNING]
        return [self._done(), *(f"{self._name(n)}, {self._state(n)}" for n in running)]

    def _left(self) -> float | None:
        """Seconds until what was let in is finished, or until the time of the budget is up."""
        budget, now = self.driver.budget, time.perf_counter()
        if now - self.estimated > EVERY:  # it looks at every stage, and thousands may come from the store at once
            self.estimated, self.left = now, self.driver.durations.left(self.driver.tree, self.epochs, self.spent)
        if self.left is None or "hours" not in budget.limits:
            return self.left
        return min(self.left, max(0.0, 3600 * (budget.limits["hours"] - budget.hours)))

    def _watch(self) -> None:
        while not self.stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        with suppress(StoreLost):  # whoever works with the store will say so
            self._tell_of_store()
            self._look_at_all()

    def _look_at_all(self) -> None:
        nodes = list(self.driver.tree.nodes.values())
        for node in nodes:
            if node.task and node.status in (RUNNING, HELD):
                self._log(node, self._behind(node))
                if not self.console.is_terminal:
                    self._tell_of(node)
            elif not self.loggers:
                continue  # nobody wants to know; thousands may have come from the store
            elif node.task and node.status == DONE and not node.until and node.key not in self.finished:
                self.finished.add(node.key)
                self._log(node, self.driver.store.history(node.key))
        if self.console.is_terminal:
            self.live.update(self._picture(nodes), refresh=True)

    def _behind(self, node: Node) -> list[dict[str, Any]]:
        """The epochs of a node under way that are over: all of them where it is only to be judged."""
        store = self.driver.store
        if not node.until and self.driver.look_up.has(node):
            with suppress(StoreLost):  # a kill may have left half of it, and it is trained again
                return store.history(node.key)
        return store.progress(node.key)

    def _log(self, node: Node, history: list[dict[str, Any]]) -> None:
        written = self.epochs.get(node.key, 0)
        if len(history) <= written and node.status in (RUNNING, HELD):
            return
        fit = f"-{node.judge}".replace(" ", "-").replace(",", "") if node.judge else ""
        name = f"{'.'.join(node.curriculum)}{fit}-seed{node.seed}-{node.key[:8]}"
        settings = {"seed": node.seed, "curriculum": str(node.curriculum), **node.settings}
        for logger in list(self.loggers) if not node.until else ():  # the stage has its segments' epochs too
            rows = history[written:] if logger.live else history
            if not logger.live and (node.status != DONE or node.reused):
                continue  # what this run trained, when it is finished
            try:
                logger.write(name, settings, rows, node.status == DONE)
            except Exception as error:  # a full disk, a server that is away: the study itself goes on
                self.loggers.remove(logger)
                self._tell(f"{type(logger).__name__} gets no more: {first_line(error)}")
        self.epochs[node.key] = len(history)
        self.spent[node.key] = sum(row.get("seconds") or 0.0 for row in history[node.begins :])
        self.last[node.key] = history[-1] if history else {}

    def _picture(self, nodes: list[Node]) -> Group:
        done, total = self._counts()
        left = self._left()
        head = Text(f"{self.driver.study.name}  ", style="bold")
        head.append(f"{self._done()}, {clock(time.perf_counter() - self.started)}", style="")
        if left is not None and done < total:
            head.append(f", about {self._rest(left)}", style="dim")
        scored = [n for n in nodes if n.task and not n.judge and not n.until and n.value is not None]
        if scored:
            best = max(scored, key=lambda n: n.value or 0.0)
            head.append(f"; best so far: {self._name(best)}, {100 * (best.value or 0.0):.1f} %")
        roots = [n for n in nodes if n.parent is None]
        room = min(MOST, max(5, self.console.height - 2 - len(roots)))
        shown: set[str] = set()
        for node in sorted((n for n in nodes if self._interest(n)[0] < 6), key=self._interest)[:room]:
            at: Node | None = node
            while at is not None and at.key not in shown:  # and all that leads up to it
                shown.add(at.key)
                at = at.parent
        branches = []
        for root in roots:
            branch = Branch(self._label(root), guide_style="dim")
            self._grow(branch, root, shown)
            branches.append(branch)
        return Group(head, *branches)

    def _grow(self, branch: Branch, node: Node, shown: set[str]) -> None:
        for child in node.children:
            if child.key in shown:
                self._grow(branch.add(self._label(child)), child, shown)

    @staticmethod
    def _interest(node: Node) -> tuple[int, float]:
        if node.judge is not None and node.status not in (RUNNING, HELD, FAILED):
            return 6, 0.0
        order = {RUNNING: 0, HELD: 1, FAILED: 2, DONE: 3, WAITING: 4, PRUNED: 5, DROPPED: 5}
        return order[node.status], -(node.value or 0.0)

    def _label(self, node: Node) -> Text:
        mark, style = MARKS[node.status]
        behind = part(node, self.driver.space.selections)
        behind = searched(node, self.driver.space) + behind if node.task and not node.judge else behind
        of = f"{node.name}: " if node.name else ""
        name = (
            str(node.judge)
            if node.judge
            else f"{node.task}{behind}"
            if node.task
            else f"{of}{node.curriculum} (seed {node.seed})"
        )
        return Text.assemble(
            (f"{mark} ", style), f"{name}  ", (self._state(node), "dim" if node.status != DONE else "")
        )


def settled(fit: Node) -> Node | None:
    """The stage that a fit is of, when this was the last of its fits to be finished."""
    of = fit.parent
    waiting = of is None or any(each.status in (WAITING, RUNNING, HELD) for each in of.fits)
    return None if waiting or of is None or of.status != DONE else of


def part(node: Node, chosen: Container[str]) -> str:
    """Behind its name: of a fit whom it is for, the rate where there are several, of a segment where it ends."""
    if node.judge is not None:
        return f", {node.judge}"
    rate = f", lr {node.settings['train']['lr']:g}" if node.task in chosen else ""
    return rate + (f", to epoch {node.until}" if node.until else "")


def clock(seconds: float) -> str:
    """1:05, 2:03:04."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
