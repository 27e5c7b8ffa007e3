"""Metadata without any image: how much sex, site and elevation alone tell. What a system with images has to beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field, field_validator

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate.base import Given
from dermsearch.evaluate.linear import Linear, Regression
from dermsearch.fit.system import INPUTS, Columns, inputs_alone
from dermsearch.nature import Nature


class MetadataOnlyConfig(Regression):
    """The columns, and the settings of `linear`."""

    metadata: Columns = Field(INPUTS, min_length=1, description="columns that are inputs")

    _refused = field_validator("metadata")(inputs_alone)


class MetadataOnly:
    """A linear probe on words as ones and zeros."""

    name = "metadata_only"
    version = 1
    nature = Nature(frozenset({"images"}), objective=False)
    Config = MetadataOnlyConfig

    def predict(self, given: Given, config: MetadataOnlyConfig, seed: int) -> dict[str, np.ndarray]:
        """By `linear` on the columns; a case of which nothing is known has zeros."""
        images = given.images
        if images is None:
            raise UserError("metadata_only: needs the cases that are judged")
        train, heldout = (self.table(images.cases, config.metadata, rows) for rows in (images.train, images.heldout))
        features = replace(given.features, train=train, heldout=heldout, columns={})
        return Linear().fitted(features, config)

    @staticmethod
    def table(cases: CaseStore, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        """(rows, values) float32: a one at each known word."""
        table = cases.table(names, rows)
        each = []
        for i, column in enumerate(table.columns):
            size = max(1, len(column.vocabulary))
            each.append(np.eye(size, dtype=np.float32)[table.values[:, i].astype(int)] * table.known[:, i, None])
        return np.concatenate(each, 1)
