"""From the driver's tree to the Arrow tables: derived, disposable, the same however often a run was interrupted."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dermsearch import __version__
from dermsearch.results.tables.writer import WHOLE, Writer
from dermsearch.search.tree.driver import KEPT, Driver
from dermsearch.search.tree.tree import DONE, FAILED, LOST, Node
from dermsearch.storage.place import READERS


class Recorder:
    """Writes the tables of one run, and the tracebacks of bugs beside them."""

    def __init__(self, driver: Driver, folder: Path, caveats: str = "") -> None:
        self.driver, self.folder, self.caveats = driver, folder, caveats
        self.provenance = {"study": driver.study.name, "version": __version__, "commit": commit()}
        self.tables = Writer(folder / "tables")

    def _add_histories(self, stages: Iterable[Node]) -> None:
        """The epochs of finished stages, each read once: thousands may have come from the store together."""
        new = [node for node in stages if not self.tables.has("epochs", node.key)]
        with ThreadPoolExecutor(READERS) as pool:
            for node, history in zip(new, pool.map(lambda n: self.driver.store.history(n.key), new), strict=True):
                self.tables.put("epochs", node.key, [self._epoch(node, row) for row in history])

    def write(self) -> None:
        """All tables, each whole; only rows of what has finished since the last time are new."""
        tree = self.driver.tree
        provenance = {**self.provenance, "caveats": "; ".join(filter(None, [self.caveats, ended_by(self.driver)]))}
        over = [n for n in tree.stages() if n.status in (DONE, *LOST)]
        judged = [n for n in tree.nodes.values() if n.status == DONE and not n.until]
        self._add_histories(n for n in judged if n.parent)
        for node in judged:
            if not self.tables.has("scores", node.key):
                own = {"stage": node.key, "curriculum": node.curriculum, "seed": node.seed}
                self.tables.put("scores", node.key, [{**row, **own} for row in self.driver.scores[node.key]])
        self.tables.put("trials", WHOLE, self.driver.trials)
        self.tables.put("stages", WHOLE, [self._stage(n) for n in over])
        segments = [n for n in tree.trained() if n.until and n.status in (DONE, FAILED)]
        self.tables.put("segments", WHOLE, [self._segment(n) for n in segments])
        for node in over:
            if "traceback" in node.record:  # a bug, not a setting: its author will want all of it
                path = self.folder / "errors" / f"{node.key}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{node.curriculum}, seed {node.seed}\n\n{node.record['traceback']}")
        self.tables.save(tree.nodes, provenance)

    @staticmethod
    def _stage(node: Node) -> dict[str, Any]:
        return {
            "key": node.key,
            "parent": node.origin.key,  # not of a segment of its own
            "depth": node.depth,
            "curriculum": node.curriculum,
            "task": node.task,
            "settings": json.dumps(node.settings, sort_keys=True),
            "seed": node.seed,
            "status": node.status,
            "reused": node.reused,
            "error": node.error,
            **{k: node.record.get(k) for k in KEPT},
        }

    @staticmethod
    def _segment(node: Node) -> dict[str, Any]:
        own = ("key", "stage", "curriculum", "task", "seed", "until", "status", "verdict", "value", "reused", "error")
        return {
            **{name: getattr(node, name) for name in own},
            "parent": node.origin.key,
            "settings": json.dumps(node.settings, sort_keys=True),
            **{k: node.record.get(k) for k in ("seconds", "epochs")},
            **(node.record.get("last") or {}),
        }

    @staticmethod
    def _epoch(node: Node, row: dict[str, Any]) -> dict[str, Any]:
        own = {"stage": node.key, "curriculum": node.curriculum, "task": node.task, "seed": node.seed}
        return {**own, **row, "parts": json.dumps(row["parts"])}


def ended_by(driver: Driver) -> str:
    """That the budget ended the run, and what was left, in words; empty where it did not."""
    if not (driver.over and driver.budget.ended):
        return ""
    left = len(driver.left())
    return f"the budget of {driver.budget.said()} was used up with {left} proposed stage{'s' * (left != 1)} left"


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
