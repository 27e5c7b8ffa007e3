"""What the weights of a mixture's stores cannot go together with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import ORIGIN
from dermsearch.data.store.strata import Strata
from dermsearch.errors import UserError
from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.search.space.space import Space
from dermsearch.study.config import Study


def check_weights(
    study: Study, space: Space, cases: CaseStore, rows: np.ndarray, stores: Mapping[str, CaseStore]
) -> None:
    """Refuse what would not keep them, and images that would stand in a batch twice, as negatives of themselves."""
    lines = [(e.name, PROTOCOLS.find(e.protocol), stores[e.data]) for e in study.entries.values() if e.data in stores]
    for where, trained, store in (
        *((f"curriculum.tasks.{name}", task, cases) for name, task in space.tasks.items()),
        *((f"downstream.{name}", protocol, store) for name, protocol, store in lines),
    ):
        if getattr(trained, "composes", False) and store.settings.get("weights"):
            raise UserError(
                f"{where}: composes its own batches, so it cannot go with the weights of a mixture's stores"
            )
    if cases.settings.get("weights"):
        for modality in study.main.modalities:
            check_twice(study, space, cases, rows[cases.has(modality)[rows]])


def check_twice(study: Study, space: Space, cases: CaseStore, rows: np.ndarray) -> None:
    """A store must have twice as many images as come of it in a batch of what takes all others for negatives."""
    strata = Strata(cases.label(ORIGIN)[rows], np.array(cases.settings["weights"], float))
    names, held = cases.classes[ORIGIN], np.bincount(strata.stores, minlength=len(strata.weights))
    for name, given in space.given.items():
        for train in (given.whole(values)["train"] for values in given.corners()):
            most = strata.most(min(train["batch"], len(rows)) // train["accumulate"]) * (held > 0)
            few = np.flatnonzero(2 * most > held)
            if space.tasks[name].contrasts and len(few):
                raise UserError(
                    f"curriculum.tasks.{name}.batch: would hold up to {most[few[0]]} images of the {held[few[0]]} of "
                    f"'{names[few[0]]}', so one might stand there twice; give a smaller batch or that store less weight"
                )
