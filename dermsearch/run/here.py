"""The case stores of a study that should lie on this machine before a run."""

from __future__ import annotations

from pathlib import Path

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.run.check import place_of
from dermsearch.study.config import Study
from dermsearch.study.data import Data


def here(study: Study) -> dict[str, Data]:
    """The data sets that are such stores."""
    return {name: data for name, data in study.sets.items() if local(data)}


def local(data: Data) -> bool:
    """Is it a case store on this machine, by its path?"""
    return data.source == "store" and "://" not in str(data.path)


def is_there(data: Data) -> bool:
    """Is there something where such a store should be? Whoever opens what is none is told so."""
    return local(data) and Path(str(data.path)).expanduser().exists()


def opened(study: Study, name: str, cache: Path) -> CaseStore:
    """A data set's cases; what is wrong with them is told by its own field."""
    try:
        return open_cases(study.sets[name], cache)
    except UserError as error:
        text = str(error)
        raise UserError(
            place_of(study, name) + text.removeprefix("data") if text.startswith("data.") else text
        ) from None
