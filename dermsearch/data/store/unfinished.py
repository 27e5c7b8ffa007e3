"""A folder that is not whole yet: one process works at it, holding the kernel's lock on it, which a kill lets go of."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dermsearch.errors import UserError

STALE = 24 * 3600  # seconds, after which nobody works at a folder whose disk knows no locks


class Busy(Exception):
    """Another process works at the folder."""


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a folder, or raise `Busy`; False where its disk, as some network disks, has no such locks."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            raise Busy from None
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(place)


@contextmanager
def growing(folder: Path) -> Iterator[Path]:
    """A folder to write in, beside the one that it is renamed to when it is whole; else it is deleted at the end."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file stands in the way, which the system says of deeper ones alone
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    with ExitStack() as stack:
        part = _begun(folder, stack)
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        yield part


def _begun(folder: Path, stack: ExitStack) -> Path:
    """A new folder that is held; another one where a process that clears up took it before it was."""
    while True:
        try:
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except FileNotFoundError:  # /proc, or a parent that is deleted meanwhile
            raise UserError(f"{folder}: no folder can be made in {folder.parent}; choose another place") from None
        with suppress(Busy, FileNotFoundError):
            stack.enter_context(held(part))
            if part.is_dir():
                return part


def clear(parent: Path, pattern: str) -> None:
    """Delete the folders that killed processes left unfinished, and none that a process works at."""
    for part in parent.glob(pattern):
        with suppress(OSError, Busy), held(part) as alone:
            if alone or time.time() - part.stat().st_mtime > STALE:
                shutil.rmtree(part, ignore_errors=True)
