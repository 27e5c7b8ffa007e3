"""What curricula begin with: roots for each seed, and where they all have weights given, a random one beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dermsearch.curriculum import RANDOM_WEIGHTS, ROOT_CURRICULUM
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
    titled = [(start, ROOT_CURRICULUM) for start in starts]
    if len(starts) == 1 and starts[0].weights:  # what they are worth: random ones are judged too, and never trained
        titled.append((Start("", starts[0].encoder), RANDOM_WEIGHTS))
    planted = {}
    for start, title in titled:
        for seed in study.search.seeds:
            own = start.encoder, study.encoder.branches, seed, start.weights
            root = tree.root(root_key(main.data, main.fingerprint, *own), seed, title, start.name)
            planted[root.key] = start
    return planted
