"""What the stage store has of a study's nodes."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dermsearch.search.tree.judges import Judges, Verdict
from dermsearch.search.tree.node import Node
from dermsearch.storage.files import READERS
from dermsearch.storage.stages import StageStore


@dataclass(frozen=True)
class Stored:
    """A node that is trained, and judged by all who are to judge it."""

    manifest: dict[str, Any]
    verdicts: list[Verdict]


class LookUp:
    """Asks for many nodes at a time: files are read whole, and may be far away."""

    def __init__(self, store: StageStore, judges: Judges) -> None:
        self.store, self.judges = store, judges
        self.there: set[str] = set()  # keys of what the store had when it was last asked
        self.stored: dict[str, Stored] = {}  # by key, those that were whole, until somebody takes them

    def look(self, nodes: Collection[Node]) -> None:
        """Find out what there is of these."""
        self.there = self.store.keys()
        if any(n.until for n in nodes):
            self.there |= self.store.keys("segments")
        some = [n for n in nodes if n.key in self.there]
        with ThreadPoolExecutor(READERS) as pool:
            for node, stored in zip(some, pool.map(self._read, some), strict=True):
                if stored is not None:
                    self.stored[node.key] = stored
            unjudged = [n for n in some if n.key not in self.stored and not n.until]
            found = pool.map(lambda n: self.store.manifest(n.key), unjudged)
            # What a kill has left of a stage is none.
            self.there -= {n.key for n, made in zip(unjudged, found, strict=True) if made is None}

    def has(self, node: Node) -> bool:
        """Was it there, judged or not? A segment that lacks a judgement is trained again, so that does not count."""
        return node.key in (self.stored if node.until else self.there)

    def take(self, node: Node) -> Stored | None:
        """What is known of it, or else is there by now."""
        return self.stored.pop(node.key, None) or self._read(node)

    def verdicts(self, node: Node) -> list[Verdict]:
        """What the store has of all judgements of a node."""
        found = []
        for judge in self.judges.of(node):
            judgement = self.store.judgement(self.judges.key(node, judge), node.key)
            found.append(Verdict(judge, judgement, "" if judgement else "was not made", reused=True))
        return found

    def _read(self, node: Node) -> Stored | None:
        verdicts = self.verdicts(node)
        if any(verdict.judgement is None for verdict in verdicts):
            return None
        manifest = (self.store.segment if node.until else self.store.manifest)(node.key)
        if manifest is None or (node.until and self.judges.fits_of(node) and not manifest.get("parts")):
            return None
        return Stored(manifest, verdicts)
