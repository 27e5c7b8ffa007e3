"""Regular files, read whole: at what is none, such as a named pipe, nobody waits."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def without_waiting(path: str, flags: int) -> int:
    """An opener of files and folders: a named pipe would make a reader wait for ever, and some devices never end."""
    opened = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(kind := os.fstat(opened).st_mode) or stat.S_ISDIR(kind):
        return opened
    os.close(opened)
    raise OSError(errno.ENXIO, "is neither a file nor a folder", path)


def bytes_of(path: str | Path) -> bytes:
    """The bytes of a file; OSError where there is none, or something else."""
    with open(path, "rb", opener=without_waiting) as file:
        return file.read()
