"""Does an image find its own table among those of all held-out cases, by what a stage hands on beside its encoders?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dermsearch.evaluate.base import Given, Settings
from dermsearch.evaluate.found import mean
from dermsearch.evaluate.nearest import before_own
from dermsearch.metrics import Measurement, case_weights
from dermsearch.models.artifact import TABLES
from dermsearch.nature import Nature

LABEL = "own_table"
FIRST = (1, 5)


class OwnTable:
    """Rank of the own table by cosine of the projections that were trained to meet. Nothing is learnt."""

    name = "own_table"
    version = 1
    nature = Nature(frozenset({"features", "tables"}), tuple(f"acc_at_{k}" for k in FIRST), (LABEL,), learns=False)
    Config = Settings

    def measure(self, given: Given, config: Settings, seed: int) -> Iterator[tuple[str, Measurement]]:
        """Mean rank and accuracy by modality, and their mean. A stage that hands on no tables is at chance."""
        features, found = given.features, dict[str, list[np.ndarray]]()
        columns = features.columns or {"image": slice(None)}
        for modality, places in columns.items():
            keep, queries, keys = meet(given, modality, features.heldout[:, places])
            better, ties = before_own(queries, keys)
            weights = case_weights(features.heldout_groups[keep])
            # Equal tables are equally right: half of them stand before the own one, and the k-th place is shared.
            hits = {f"acc_at_{k}": np.clip((k - better) / (ties + 1), 0, 1) for k in FIRST}
            for metric, value in {"mean_rank": 1 + better + ties / 2, **hits}.items():
                values = mean(value, weights)
                found.setdefault(metric, []).append(values)
                yield features.split, Measurement(LABEL, f"{modality} to table", metric, len(keep), values)
        for metric, each in found.items():
            yield features.split, Measurement(LABEL, "", metric, len(features.heldout), np.mean(each, axis=0))


def meet(given: Given, modality: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The held-out cases of which something is known, their images and their tables in the space where they meet."""
    part, images_of, everyone = given.artifact.get(TABLES), given.images, np.arange(len(images))
    nothing = everyone, np.zeros((len(images), 1)), np.zeros((len(images), 1))
    if part is None or images_of is None:
        return nothing
    import torch

    from dermsearch.data.case import column_of
    from dermsearch.data.store.columns import onto
    from dermsearch.models.nested import LESION, nested
    from dermsearch.models.tables import table_encoder

    made, encoder = nested(part).eval(), table_encoder(part, LESION)
    branch = images_of.encoders.branch_of(modality)
    if made.table is None or branch not in made.image:  # it was trained without this contrast
        return nothing
    table = images_of.cases.table(images_of.metadata, images_of.heldout)
    table = onto(table, tuple(map(column_of, encoder.config["columns"])))
    keep = np.flatnonzero(table.known.any(axis=1))
    encoded = encoder.outputs(table.values[keep], table.known[keep], torch.device("cpu"))
    with torch.no_grad():
        seen = made.image_projection(torch.from_numpy(images[keep]).float(), branch).numpy()
        told = made.table_projection(torch.from_numpy(encoded)).numpy()
    return keep, seen, told
