"""What curricula start from: a root for each seed, and where that has weights of a file, a random one beside it."""

from __future__ import annotations

from dermsearch.curriculum import RANDOM_WEIGHTS
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.keys import root_key
from dermsearch.study.config import Study


def plant(tree: Tree, study: Study, fingerprint: str, weights: str = "") -> None:
    """Put the roots of a study into its tree; `weights` is the content hash of the file that curricula start with."""
    for seed in study.search.seeds:
        tree.root(root_key(study.data, fingerprint, study.encoder, seed, weights), seed)
    if weights:  # what they are worth: random ones are judged beside them, and never trained
        for seed in study.search.seeds:
            tree.root(root_key(study.data, fingerprint, study.encoder, seed), seed, RANDOM_WEIGHTS)
