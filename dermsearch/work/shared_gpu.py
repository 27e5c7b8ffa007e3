"""A GPU that several jobs share (`compute.gpus: 0.5`): who is on it, and how one that lacked memory has it for itself.

Jobs of a machine hold the kernel's lock on the GPU's room together. One whose memory ran out leaves, waits at the door
until the others have gone, so that nobody new comes in before it, and holds the room alone.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import torch

from dermsearch.work.job import Job


class Seat:
    """A job's seat on a GPU. `folder` is of that GPU and of this user; files in it name who is there."""

    def __init__(self, folder: Path, who: str, held: ExitStack) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} is somebody else's")
        self.door, self.room = (held.enter_context((folder / name).open("a")) for name in ("door", "room"))
        self.own = tempfile.NamedTemporaryFile("w", suffix=".job", dir=folder)  # noqa: SIM115  # closed with the rest
        held.enter_context(self.own)
        fcntl.flock(self.own, fcntl.LOCK_EX)  # as long as it is held, whoever it names is there
        self.own.write(who)
        self.own.flush()
        self.come_in(fcntl.LOCK_SH)

    def come_in(self, how: int) -> None:
        """Wait at the door for those who came before, then until the room is free."""
        fcntl.flock(self.door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self.room, how)
        finally:
            fcntl.flock(self.door, fcntl.LOCK_UN)

    def have_alone(self) -> None:
        """Wait until all others have left; from now on nobody comes in."""
        fcntl.flock(self.room, fcntl.LOCK_UN)  # two that held on to it would wait for each other
        self.come_in(fcntl.LOCK_EX)

    def others(self) -> list[str]:
        """Who else is there."""
        found = []
        own = Path(self.own.name)
        for mark in sorted(own.parent.glob("*.job")):
            with suppress(OSError), mark.open() as file:
                if mark != own and not free(file):
                    found.append(file.read())
        return found


def free(file: IO[str]) -> bool:
    """Has the process that held it ended, killed perhaps?"""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


@contextmanager
def seat_of(job: Job) -> Iterator[Seat | None]:
    """While it lasts the job has its share of a GPU; None where it has a whole one, none, or one in each of several."""
    gpu = gpu_in_use() if 0 < job.gpus < 1 and job.workers == 1 else ""
    with ExitStack() as held:
        seat = None
        if gpu:
            folder = Path(tempfile.gettempdir()) / f"dermsearch-gpu-{os.getuid()}-{gpu}"
            with suppress(OSError):  # a disk without locks, a folder that is not ours: it is shared, as before
                seat = Seat(folder, str(job), held)
        yield seat


def gpu_in_use() -> str:
    """The number by which all processes of the machine know the GPU of this one; empty without."""
    return str(torch.cuda.get_device_properties(0).uuid) if torch.cuda.is_available() else ""
