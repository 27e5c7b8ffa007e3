"""What a process opens once and serves many jobs with: the stage store, and the case stores of studies."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.errors import UserError
from dermsearch.storage.stages import StageStore
from dermsearch.study.data import Data
from dermsearch.work.job import Job


def cases_of(job: Job, name: str) -> CaseStore:
    """A data set of the job, if its cases are those that the study began with."""
    wanted = job.sets[name]
    cases = _opened(wanted.data.model_dump_json(), job.cache)
    if cases.fingerprint != wanted.fingerprint:
        raise UserError(f"{cases.folder}: was made anew while the study ran; run the same command again")
    return cases


def look_of(data: Data) -> Look:
    """How the study looks at a data set's images."""
    return Look(data.size, data.border, data.normalise)


@cache
def open_store(where: str) -> StageStore:
    """One handle per process: workers are warm and serve many stages."""
    return StageStore(where)


@cache
def _opened(data: str, cache_folder: str) -> CaseStore:
    return open_cases(Data.model_validate_json(data), Path(cache_folder))
