"""Which protocols judge a node, under which keys they do, and what it is worth by what they say."""

from __future__ import annotations

from typing import Any

from dermsearch.evaluate import PROTOCOLS
from dermsearch.search.tree.node import Node
from dermsearch.storage.keys import score_key
from dermsearch.study.config import Study

Row = dict[str, Any]


class Judges:
    """The protocols of a study, with all of their settings."""

    def __init__(self, study: Study, precision: str) -> None:
        self.objective, self.labelled, self.precision = study.objective, study.data.labelled, precision
        self.configs = {
            n: PROTOCOLS[n].Config(**(c or {})).model_dump(mode="json") for n, c in study.downstream.items()
        }

    def of(self, node: Node) -> dict[str, dict[str, Any]]:
        """Those that judge it: a segment only by what decides on it."""
        if not node.until:
            return self.configs
        wanted = self.objective.protocol
        return {wanted: self.configs[wanted]} if node.judged else {}

    def keys(self, node: Node) -> list[str]:
        """Of the judgements that a node has once it is finished."""
        return [
            score_key(node.key, name, PROTOCOLS[name].version, config, self.labelled, "val", self.precision)
            for name, config in self.of(node).items()
        ]

    def value(self, node: Node, rows: list[Row]) -> None:
        """Note what a node is worth by the study's objective, and how much it may be worth."""
        o = self.objective
        wanted = (o.protocol, o.metric, o.label, "", "val")
        for row in rows:
            if (row["protocol"], row["metric"], row["label"], row["class"], row["split"]) == wanted:
                node.value, node.high = row["value"], row.get("ci_high") or float("inf")
