"""Whose fault an error is: of a stage's own settings, of the machine that it ran on, or of nobody who could be named.

Only the first is a verdict on the stage. After anything else the process may be sick for good (an error of CUDA stays
until it ends), so an engine ends it and tries the job in another.
"""

from __future__ import annotations

import errno
import traceback

import torch

from dermsearch.errors import UserError, first_line, public
from dermsearch.training.health import StageFailed
from dermsearch.work.record import Record

# A disk that is full or gone, no more files to be opened: every job that follows would meet the same.
SICK = {errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}


LACKED = ": out of memory: "  # between what was done and what is said of it


def verdict(error: Exception, what: str) -> str | None:
    """Why the job cannot be done with its settings; None where the error says nothing of them.

    `what` was being done goes before the little that is said of memory that ran out.
    """
    if isinstance(error, (StageFailed, UserError)):
        return str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
        return f"{what}{LACKED}{(str(error) or 'of the processor').splitlines()[0]}"
    return None


def lacked_memory(record: Record) -> bool:
    """Did memory run out in the job, or in one of its judgements?"""
    return any(LACKED in told for told in (record.error, *(judged.reason for judged in record.judged)))


def of_machine(error: Exception) -> bool:
    """Would whatever else this process does fail as well?"""
    if isinstance(error, OSError):
        return error.errno in SICK
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def given_up(key: str, error: Exception) -> Record:
    """The record of a job that failed in every process that tried it: a bug, perhaps in one task only."""
    said = f"{type(error).__name__}: {first_line(error)}"
    told = public("".join(traceback.format_exception(error)))
    return Record(key=key, status="failed", error=said, traceback=told)
