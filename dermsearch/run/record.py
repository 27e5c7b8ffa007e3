"""From the driver's tree to the Arrow tables: derived, disposable, the same however often a run was interrupted."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow.compute as pc

from dermsearch import __version__
from dermsearch.errors import UserError
from dermsearch.results.tables.schema import FIT, PRETEXT, read
from dermsearch.results.tables.writer import WHOLE, Writer
from dermsearch.search.tree.driver import Driver
from dermsearch.search.tree.node import DONE, FAILED, LOST, Node
from dermsearch.storage.files import READERS
from dermsearch.study.config import Study
from dermsearch.words import many
from dermsearch.work.job import Cases, Judge
from dermsearch.work.record import MADE

PARTS = ("parts", "val_parts")  # of an epoch, in the table as JSON
WHEN = ("process", "began", "ended", "libraries")  # of a job, in the table of stages


class Recorder:
    """Writes the tables of one run, and the tracebacks of bugs beside them."""

    def __init__(
        self, driver: Driver, folder: Path, caveats: str = "", groups: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.driver, self.folder, self.caveats = driver, folder, caveats
        self.groups = groups  # by data set, what intervals are drawn over
        self.provenance = provenance(driver.study, driver.judges.sets)
        self.tables = Writer(folder / "tables")
        self.bugs: dict[str, dict[str, str]] = {}  # by key of a node, by what it was at: tracebacks
        self.earlier, self.when = earlier(folder), when(folder)

    def write(self) -> None:
        """All tables, each whole; only rows of what has finished since the last time are new.

        A run that is interrupted before it has come as far as the one before leaves that one's tables: who reads them,
        as `store gc` does, would think that the study needs less.
        """
        tree = self.driver.tree
        if not self.driver.over and self._lags():
            return
        caveats = "; ".join(filter(None, [self.caveats, ended_by(self.driver)]))
        nodes = list(tree.nodes.values())
        self._add_histories(n for n in nodes if n.status == DONE and n.task and not n.until)
        for node in nodes:
            if node.key in self.driver.verdicts and not node.until and not self.tables.has("judgements", node.key):
                self._add_judgements(node)
        over = [n for n in nodes if n.kind in ("stage", "fit") and n.status in (DONE, *LOST)]
        segments = [n for n in nodes if n.until and n.status in (DONE, FAILED)]
        self.tables.put("trials", WHOLE, self.driver.window.trials)
        self.tables.put("stages", WHOLE, [self._stage(n) for n in over])
        self.tables.put("segments", WHOLE, [self._segment(n) for n in segments])
        for node in over:
            self._tell_of_bug(node, node.record.get("traceback", ""))
        self.tables.save(tree.nodes, {**self.provenance, "caveats": caveats})

    def _lags(self) -> bool:
        """Is what an earlier run had finished still to come? All of it is proposed before anything new is trained."""
        nodes = self.driver.tree.nodes
        over = {key for key in self.earlier if key in nodes and nodes[key].status in (DONE, *LOST)}
        new = any(n.task and n.status == DONE and not n.reused for n in nodes.values()) if self.earlier else False
        self.earlier = {key for key in self.earlier - over if key in nodes or not new}
        return bool(self.earlier)

    def _add_histories(self, nodes: Iterable[Node]) -> None:
        """The epochs of what is finished, each read once: thousands may have come from the store together."""
        new = [node for node in nodes if not self.tables.has("epochs", node.key)]
        with ThreadPoolExecutor(READERS) as pool:
            for node, history in zip(new, pool.map(lambda n: self.driver.store.history(n.key), new), strict=True):
                own = {**whose(node), "task": node.task}
                rows = [{**own, **row, **{n: json.dumps(row[n]) for n in PARTS if n in row}} for row in history]
                self.tables.put("epochs", node.key, rows)

    def _add_judgements(self, node: Node) -> None:
        """What was said of a node, or why it was not. A fit's belong to the stage that it is of."""
        scores, confusions, judgements, predictions = [], [], [], []
        for verdict in self.driver.verdicts[node.key]:
            judge, made = verdict.judge, verdict.judgement is not None
            judgement = verdict.judgement or {"rows": [], "confusions": [], "seconds": None}
            own, groups = told(node, judge), self.groups.get(judge.data)
            about = {"status": "done" if made else "failed", "reused": verdict.reused, "reason": verdict.reason}
            judgements.append({**own, **about, "seconds": judgement["seconds"]})
            scores += [{**own, "groups": groups, **row} for row in judgement["rows"]]
            confusions += [{**own, **row} for row in judgement["confusions"]]
            said = self.driver.store.predictions(self.driver.judges.key(node, judge)) if made else None
            predictions += [(own, said)] if said is not None else []
            self._tell_of_bug(node, verdict.traceback, f", {judge}")
        for name, rows in (("scores", scores), ("confusions", confusions), ("judgements", judgements)):
            self.tables.put(name, node.key, rows)
        self.tables.put_tables("predictions", node.key, predictions)
        self.driver.verdicts[node.key] = [self.driver.judges.kept(v) for v in self.driver.verdicts[node.key]]

    def _stage(self, node: Node) -> dict[str, Any]:
        return {
            **whose(node),
            "key": node.key,
            "kind": FIT if node.kind == "fit" else PRETEXT,
            "parent": node.origin.key,  # not of a segment of its own
            "depth": node.depth,
            "task": node.task,
            "settings": json.dumps(node.settings, sort_keys=True),
            "status": node.status,
            "reused": node.reused,
            "error": node.error,
            **{name: node.record.get(name) for name in MADE},
            **self._when(node),
        }

    def _when(self, node: Node) -> dict[str, Any]:
        """When and by whom a stage was trained: by this run, or by an earlier one into this folder."""
        if node.status == DONE and not node.reused and node.record.get("ended"):
            self.when[node.key] = {name: node.record.get(name) for name in WHEN}
        return self.when.get(node.key, {})

    def _segment(self, node: Node) -> dict[str, Any]:
        own = ("key", "stage", "task", "until", "status", "verdict", "value", "reused", "error")
        return {
            **whose(node),
            **{name: getattr(node, name) for name in own},
            "curriculum": str(node.curriculum),
            "parent": node.origin.key,
            "settings": json.dumps(node.settings, sort_keys=True),
            **{name: node.record.get(name) for name in ("seconds", "epochs")},
            **(node.record.get("last") or {}),
        }

    def _tell_of_bug(self, node: Node, traceback: str, judge: str = "") -> None:
        """A bug, not a setting: its author will want all of it. A node may meet several, one in each judgement."""
        told = self.bugs.setdefault(node.key, {})
        if not traceback or traceback in told.values():
            return
        told[f"{node.curriculum}, seed {node.seed}{judge}"] = traceback
        path = self.folder / "errors" / f"{node.key}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(f"{title}\n\n{text}" for title, text in told.items()), "utf-8")


def earlier(folder: Path) -> set[str]:
    """Keys of what an earlier run of the study finished, as its tables tell; nothing where they cannot."""
    found = set[str]()
    for name in ("stages", "segments"):
        with suppress(OSError, UserError, LookupError):
            table = read(folder / "tables" / f"{name}.arrow")
            found |= set(table.filter(pc.field("status") == DONE)["key"].to_pylist())
    return found


def when(folder: Path) -> dict[str, dict[str, Any]]:
    """By key of a stage when and by whom it was trained, as an earlier run's table tells."""
    with suppress(OSError, UserError, LookupError):
        stages = read(folder / "tables" / "stages.arrow").to_pylist()
        return {row["key"]: {name: row.get(name) for name in WHEN} for row in stages if row["ended"]}
    return {}


def whose(node: Node) -> dict[str, Any]:
    """Whose a row is."""
    return {"stage": node.key, "curriculum": str(node.curriculum), "root": node.root.name, "seed": node.seed}


def told(node: Node, judge: Judge) -> dict[str, Any]:
    """Whose a judgement is, and who made it; a fit's is of the stage that it is fitted to."""
    of = node.parent if node.judge is not None and node.parent is not None else node
    return {**whose(of), **judge.model_dump(include={"protocol", "data", "labelled", "draw", "split"})}


def ended_by(driver: Driver) -> str:
    """That the budget ended the run, and what was left, in words; empty where it did not."""
    if not (driver.over and driver.budget.ended):
        return ""
    left = len(driver.left())
    return f"the budget of {driver.budget.said()} was used up with {many(left, 'proposed stage')} left"


def provenance(study: Study, sets: Mapping[str, Cases]) -> dict[str, str]:
    """Where every row of a run comes from: the study, the code, and the images and labels, by their fingerprints."""
    stores = "; ".join(f"{name} {cases.fingerprint}" for name, cases in sets.items())
    return {"study": study.name, "version": __version__, "commit": commit(), "stores": stores}


@functools.cache
def commit() -> str:
    """The commit of this checkout, where dermsearch runs from one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
