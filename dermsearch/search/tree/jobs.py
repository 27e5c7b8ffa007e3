"""A node of the tree as a job."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.node import Node
from dermsearch.search.tree.roots import Start
from dermsearch.study.config import Study
from dermsearch.work.job import Job


@dataclass(frozen=True)
class Jobs:
    """What all jobs of a run have in common."""

    study: Study
    judges: Judges
    store: str  # its address
    cache: str  # the folder of case stores
    starts: Mapping[str, Start]  # by key of a root, what it is

    def of(self, node: Node) -> Job:
        """The job of training and judging a node."""
        study, compute, start = self.study, self.study.compute, self.starts[node.root.key]
        return Job(
            kind=node.kind,
            key=node.key,
            parent=node.origin.key if node.parent else "",
            after=node.origin.kind if node.parent else "root",
            stage=node.stage,
            until=node.until,
            segments=tuple(n.key for n in reversed(node.chain[:-1])),
            keeps=bool(node.until and node.fits),
            task=node.task,
            settings=node.settings,
            curriculum=str(node.curriculum),
            study=study.name,
            seed=node.seed,
            sets=dict(self.judges.sets),
            encoder=start.encoder,
            branches=study.encoder.branches,
            weights=start.weights,
            precision=self.judges.precision,
            judges=tuple(self.judges.of(node)),
            store=self.store,
            cache=self.cache,
            threads=compute.threads,
            gpus=compute.gpus,
            workers=compute.workers if node.task else 1,
            retries=compute.retries,
            compile=compute.compile,
            pixels=compute.pixels,
            save_every=compute.save_every,
            knn_every=study.train.knn_every,
            label=study.objective.label,
            node=socket.gethostname(),
        )
