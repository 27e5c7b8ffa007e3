"""Rows of the table of trials: what became of each proposal."""

from __future__ import annotations

import json
from typing import Any

from dermsearch.search.propose.proposer import Asked
from dermsearch.search.tree.durations import own
from dermsearch.search.tree.node import DONE, FAILED
from dermsearch.search.tree.replicates import Paths
from dermsearch.search.tree.rungs import Cut


def trial(asked: Asked, paths: Paths, value: float | None, cut: Cut | None) -> dict[str, Any]:
    """The row of a proposal that is finished, failed or was pruned."""
    trained = {
        n.key: own(n, "seconds")
        for path in paths
        for node in path
        for n in (*node.chain, *node.fits)
        if n.status == DONE
    }
    last = [path[-1] for path in paths]
    lost = next((n.unjudged for n in last if n.unjudged), "")  # why it has no value, though it is trained
    failed = bool(lost) or any(n.status == FAILED for n in last)
    return {
        "trial": asked.number,
        "root": asked.proposal.root,
        "curriculum": str(asked.proposal.curriculum),
        "settings": json.dumps(asked.proposal.settings),
        "keys": [n.key for n in last if n.depth == len(asked.proposal.curriculum)],
        "status": "done" if value is not None else "failed" if failed else "pruned" if cut else "dropped",
        "value": value,
        "seeds": len(paths),
        "seconds": sum(trained.values()),
        "error": cut.why if cut else lost,
    }
