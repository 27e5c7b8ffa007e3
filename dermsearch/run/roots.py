"""What a study's curricula begin with: found, checked, and put into the stage store for workers on any node."""

from __future__ import annotations

from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import fingerprint, read_weights, spread
from dermsearch.search.tree.roots import Start
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.encoder import Finished, Root


def check_weights(root: Root, study: Study) -> None:
    """Refuse weights that are not there or do not fit the root's architecture."""
    if isinstance(root.weights, Finished):
        handed_on(root, root.weights, study)
    elif root.weights is not None:
        read_weights(root.weights, root.encoder)


def starts(study: Study) -> list[Start]:
    """Every root with the content hash of what it begins with; reads files, writes nothing."""
    return [Start(root.name, root.encoder, content(root)) for root in study.encoder.roots]


def content(root: Root) -> str:
    """The hash of a file, the key of a finished stage, which is one; empty for random weights."""
    if root.weights is None:
        return ""
    return root.weights.key if isinstance(root.weights, Finished) else fingerprint(root.weights)


def keep_weights(study: Study, store: StageStore) -> None:
    """Put what curricula start with where every worker finds it."""
    for root in study.encoder.roots:
        weights, held = root.weights, content(root)
        if weights is None or store.weights(held, root.encoder) is not None:
            continue
        if isinstance(weights, Finished):
            store.write_weights(held, root.encoder, handed_on(root, weights, study))
        else:
            store.write_weights(held, root.encoder, {ENCODERS: Part({}, read_weights(weights, root.encoder))})


def handed_on(root: Root, weights: Finished, study: Study) -> dict[str, Part]:
    """The artifact of a finished stage, if it fits."""
    try:
        store = StageStore(weights.store, create=False)
        whole = store.manifest(weights.key) is not None
    except UserError as error:
        raise UserError(f"encoder.weights.store: {error}") from None
    if not whole:
        raise UserError(f"encoder.weights.key: the store '{weights.store}' has no finished stage {weights.key}")
    try:
        artifact = store.artifact(weights.key)
    except UserError as error:
        raise UserError(f"encoder.weights.key: {error}") from None
    if ENCODERS not in artifact:
        raise UserError(f"encoder.weights.key: {weights.key} is a fit, which hands on no encoders")
    empty = Encoders.empty(root.encoder, study.main.modalities, study.encoder.branches)
    try:
        spread(artifact[ENCODERS].state, empty)
    except (RuntimeError, KeyError):
        raise UserError(
            f"encoder.weights.key: the encoders of stage {weights.key} are not those of encoder.name, "
            f"'{root.encoder}', with branches {', '.join(empty.branches)}"
        ) from None
    return artifact
