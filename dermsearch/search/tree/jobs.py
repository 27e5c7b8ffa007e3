"""A node of the tree as a job: all that a worker needs to know, as JSON."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsearch.curriculum import RANDOM_WEIGHTS
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.node import Node
from dermsearch.study.config import Data, Study


@dataclass(frozen=True)
class Jobs:
    """What all jobs of a run have in common."""

    study: Study
    judges: Judges
    store: str  # its address
    cache: str  # the folder of case stores
    fingerprint: str  # of the cases
    precision: str
    weights: str = ""  # content hash of the file that curricula start with; empty: random

    def of(self, node: Node) -> dict[str, Any]:
        """The job of training and judging a node."""
        compute = self.study.compute
        return {
            "key": node.key,
            "parent": node.origin.key if node.parent else "",
            "until": node.until,  # of a segment: the epoch after which it ends
            "stage": node.stage,
            "segments": [n.key for n in reversed(node.chain[:-1])],  # of the same stage: it may go on from their states
            "depth": node.depth,
            "task": node.task,
            "curriculum": str(node.curriculum),
            "study": self.study.name,
            "settings": node.settings,
            "seed": node.seed,
            "data": placed(self.study.data),
            "encoder": self.study.encoder.model_dump(mode="json"),
            "weights": "" if node.title == RANDOM_WEIGHTS else self.weights,
            "precision": self.precision,
            "protocols": self.judges.of(node),
            "store": self.store,
            "cache": self.cache,
            "fingerprint": self.fingerprint,
            "threads": compute.threads,
            "gpus": compute.gpus,
            "workers": compute.workers if node.task else 1,
            "retries": compute.retries,
            "compile": compute.compile,
            "knn_every": self.study.train.knn_every,
            "label": self.study.objective.label,
            "node": socket.gethostname(),
        }


def placed(data: Data) -> dict[str, Any]:
    """A study's data section as a job carries it: its store is found from any working folder."""
    section = data.model_dump(mode="json")
    if data.path and "://" not in data.path:
        section["path"] = str(Path(data.path).expanduser().absolute())
    return section
