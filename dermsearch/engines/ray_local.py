"""A Ray of this run's own on this machine: behind a token and in a folder that are nobody else's, and gone at the end.

The folder names its owner, so that a later run can take away what a killed one had to leave. Where it names none (the
kill came first), or one of another container or of before a restart, what counts is how long it has given no sign.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dermsearch.errors import UserError, first_line
from dermsearch.storage.leases import born, home

BEGINS, OWNER = "dermsearch-", "owner.json"
MARK = "DERMSEARCH_RAY"  # in the environment of every process of it: the folder
LONGEST = 38  # characters: with what Ray puts behind, the path of a socket may have 107
GRACE = 10.0  # seconds that killed processes have to be gone
SILENT = 24 * 3600.0  # seconds without a sign after which an owner who cannot be looked up is dead


class Place:
    """The folder of one Ray, and the processes that work in it."""

    def __init__(self) -> None:
        try:
            base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
            if len(str(base / BEGINS)) + 8 > LONGEST:
                base = Path("/tmp")
            clear(base)
            self.folder = Path(tempfile.mkdtemp(prefix=BEGINS, dir=base))  # for its owner alone
        except OSError as error:
            raise UserError(
                f"Ray has no place for its files: {first_line(error)}; name another as RAY_TMPDIR"
            ) from None
        self.sessions = self.folder / "r"  # Ray opens to all what it is given; nobody comes that far
        about = {"home": home(), "pid": os.getpid(), "born": born(os.getpid())}
        (self.folder / OWNER).write_text(json.dumps(about))
        os.environ[MARK] = str(self.folder)
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            # Else Ray puts one into the home folder, for all to read.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    def sign(self) -> None:
        """Say that its owner lives, to who cannot look that up."""
        with suppress(OSError):
            os.utime(self.folder / OWNER)

    def leave(self) -> None:
        """End what is left of its processes, and take the folder away."""
        until = time.monotonic() + GRACE
        os.environ.pop(MARK, None)
        while (left := list(processes(self.folder))) or self.folder.exists():
            end(left)
            shutil.rmtree(self.folder, ignore_errors=True)  # one that dies may still write into it
            if time.monotonic() > until:
                break
            time.sleep(0.05)


def processes(folder: Path) -> Iterator[int]:
    """Of the Ray in that folder, its own and its workers that still run, this process excepted."""
    mark, place = f"{MARK}={folder}".encode(), str(folder)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()) if os.path.isdir("/proc") else ():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if words.startswith(b"ray::"):  # such a title is written over the environment
                ours = any(link.startswith(f"{place}/") for link in opened(pid))
            else:
                ours = place.encode() in words and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if ours and pid != os.getpid():
                yield pid


def end(pids: Iterable[int]) -> None:
    """Kill these."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def opened(pid: int) -> Iterator[str]:
    """The files that a process has open."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield os.readlink(fd)


def clear(base: Path) -> None:
    """Take away the folders of runs of this user that are dead for certain, and what is left of their processes.

    Ray's agents should end with their raylet, and on a busy machine two were seen that did not.
    """
    with suppress(OSError):
        for folder in base.glob(f"{BEGINS}*"):
            with suppress(OSError):
                about = folder.lstat()
                if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and is_dead(folder):
                    end(processes(folder))
                    shutil.rmtree(folder, ignore_errors=True)


def is_dead(folder: Path) -> bool:
    """Has the run that this folder is of ended?"""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        owner = json.loads((folder / OWNER).read_text())
        if owner["home"] == home():
            return born(int(owner["pid"])) != owner["born"]
    signs = [path.lstat().st_mtime for path in (folder, folder / OWNER) if path.exists()]
    return time.time() - max(signs) > SILENT and not any(processes(folder))
