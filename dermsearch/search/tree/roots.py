"""What curricula begin with: roots for each seed, and where they all have weights given, a random one beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dermsearch.curriculum import RANDOM_WEIGHTS
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.keys import root_key
from dermsearch.study.config import Study
from dermsearch.work.job import Cases


@dataclass(frozen=True)
class Start:
    """An architecture with its weights."""

    name: str  # where a study has several; else empty
    encoder: str
    weights: str = ""  # content hash of what they come from; random by seed if empty


def plant(tree: Tree, study: Study, main: Cases, starts: Sequence[Start]) -> dict[str, Start]:
    """Put the roots of a study into its tree; returns what each is, by key."""

    def key(start: Start, seed: int) -> str:
        return root_key(main.data, main.fingerprint, start.encoder, study.encoder.branches, seed, start.weights)

    planted = {}
    for start in starts:
        for seed in study.search.seeds:
            root = tree.root(key(start, seed), seed, name=start.name)
            planted[root.key] = start
    if len(starts) == 1 and starts[0].weights:  # what they are worth: random ones are judged too, and never trained
        random = Start("", starts[0].encoder)
        for seed in study.search.seeds:
            root = tree.root(key(random, seed), seed, RANDOM_WEIGHTS)
            planted[root.key] = random
    return planted
