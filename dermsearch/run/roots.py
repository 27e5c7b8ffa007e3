"""What a study's curricula begin with: found, checked, and put into the stage store for workers on any node."""

from __future__ import annotations

from torch import Tensor

from dermsearch.errors import UserError, public
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.hub import located
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
        read(root.weights, root)


def starts(study: Study) -> list[Start]:
    """Every root with the content hash of what it begins with; reads files, writes nothing."""
    return [Start(root.name, root.encoder, content(root)) for root in study.encoder.roots]


def content(root: Root) -> str:
    """The hash of a file, the key of a finished stage, which is one; empty for random weights."""
    if root.weights is None:
        return ""
    if isinstance(root.weights, Finished):
        return root.weights.key
    return fingerprint(str(located(root.weights, root.encoder).path), root.weights)


def origins(study: Study) -> dict[str, str]:
    """Where the weights of each root came from, in words, by what the root is called."""
    found = {}
    for root in study.encoder.roots:
        weights = root.weights
        if isinstance(weights, Finished):
            found[root.name or root.encoder] = public(f"stage {weights.key} of {weights.store}")
        elif weights is not None:
            found[root.name or root.encoder] = located(weights, root.encoder).origin
    return found


def read(weights: str, root: Root) -> dict[str, Tensor]:
    """The weights of a file, or of what somebody else pre-trained."""
    return read_weights(str(located(weights, root.encoder).path), root.encoder, weights)


def keep_weights(study: Study, store: StageStore) -> None:
    """Put what curricula start with where every worker finds it."""
    for root in study.encoder.roots:
        weights, held = root.weights, content(root)
        if weights is None or store.weights(held, root.encoder) is not None:
            continue
        if isinstance(weights, Finished):
            store.write_weights(held, root.encoder, handed_on(root, weights, study))
        else:
            store.write_weights(held, root.encoder, {ENCODERS: Part({}, read(weights, root))})


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
