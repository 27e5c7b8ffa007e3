"""A file system below `storage.files` to which something may happen at every operation, by schedule.

Nothing is mounted: folders are opened on it, and what `storage` asks of the system itself goes through it too.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.fs as pafs
import pytest

from dermsearch.storage import files, leases

Strike = Callable[[str, str], str | None]  # (what is about to be done, to which file) -> SHORT or STALE
CHANGES = ("write", "move", "delete")
LOOKS = ("read", "list")
SHORT, STALE = "short", "stale"  # half of a file is read; a folder is listed as it was when it was listed before


class Killed(BaseException):
    """What SIGKILL is to a process: nothing in it runs on."""


def harmless(what: str, path: str) -> None:
    """Nothing happens."""


class Shaky(pafs.LocalFileSystem):
    """A local file system that something may befall before, or half-way through, every operation."""

    strike: Strike = staticmethod(harmless)
    seen: ClassVar[dict[str, Any]] = {}  # the listings of before

    @classmethod
    def instead(cls, patch: pytest.MonkeyPatch) -> None:
        """Let every folder be on it."""
        patch.setattr(pafs, "LocalFileSystem", cls)
        patch.setattr(files, "without_waiting", cls.opener)
        patch.setattr(files, "os", System())
        patch.setattr(leases, "os", System())

    @classmethod
    def opener(cls, path: str, flags: int) -> int:
        """With this one local files are opened without pyarrow."""
        short, opened = cls.strike("read", path) == SHORT, WITHOUT_WAITING(path, flags)
        if not short or os.path.isdir(path):
            return opened
        half = os.memfd_create("half")
        with open(opened, "rb") as file:
            data = file.read()
        os.write(half, data[: len(data) // 2])
        os.lseek(half, 0, os.SEEK_SET)
        return half

    @classmethod
    def listing(cls, path: str, now: Callable[[], Any]) -> Any:
        """What is in a folder, or was."""
        stale = cls.strike("list", path) == STALE
        found = cls.seen[path] if stale and path in cls.seen else now()
        cls.seen[path] = found
        return found

    def get_file_info(self, what: Any) -> Any:
        if not isinstance(what, pafs.FileSelector):
            return super().get_file_info(what)
        one = super().get_file_info
        return self.listing(f"{what.base_dir}{'/**' * what.recursive}", lambda: one(what))

    def open_output_stream(self, path: str, *args: Any, **more: Any) -> Any:
        return Half(super().open_output_stream(path, *args, **more), path, self.strike)

    def open_input_stream(self, path: str) -> Any:
        short = self.strike("read", path) == SHORT
        stream = super().open_input_stream(path)
        if not short:
            return stream
        data = stream.read()
        return io.BytesIO(data[: len(data) // 2])

    def move(self, src: str, dest: str) -> None:
        self.strike("move", dest)
        super().move(src, dest)

    def delete_dir(self, path: str) -> None:
        self.strike("delete", path)
        super().delete_dir(path)

    def delete_file(self, path: str) -> None:
        self.strike("delete", path)
        super().delete_file(path)


WITHOUT_WAITING = files.without_waiting


class System:
    """The module `os`, of which some functions may be struck too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, path: str) -> Any:
        return Shaky.listing(path, lambda: os.listdir(path))

    def rename(self, src: Any, dest: Any) -> None:
        Shaky.strike("move", str(dest))
        os.rename(src, dest)

    def link(self, src: Any, dest: Any) -> None:
        Shaky.strike("move", str(dest))
        os.link(src, dest)


class Half:
    """A file that is being written: when something happens, half of it is there."""

    def __init__(self, out: Any, path: str, strike: Strike) -> None:
        self.out, self.path, self.strike = out, path, strike

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *error: object) -> None:
        self.out.close()

    def write(self, data: bytes) -> None:
        self.out.write(data[: len(data) // 2])
        self.out.flush()
        self.strike("write", self.path)
        self.out.write(data[len(data) // 2 :])


class Bucket:
    """An object store in a folder: nothing can be renamed, what is written appears whole, listings may be old."""

    type_name = "s3"

    def __init__(self) -> None:
        self.below = Shaky()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)

    @classmethod
    def instead(cls, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Let every URI of s3 be in that folder."""

        class System(pafs.FileSystem):
            @staticmethod
            def from_uri(uri: str) -> Any:
                return cls(), str(folder / uri.partition("://")[2])  # no slash twice: schedules go by the path

        patch.setattr(pafs, "FileSystem", System)

    def create_dir(self, path: str, recursive: bool = True) -> None:
        """A marker that one is there, as pyarrow writes it."""
        os.makedirs(path, exist_ok=True)

    def open_output_stream(self, path: str) -> Any:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return Whole(path)

    def move(self, src: str, dest: str) -> None:
        os.makedirs(os.path.dirname(dest), exist_ok=True)
        self.below.copy_file(src, dest)
        self.below.delete_file(src)


class Whole:
    """An object that is being written: it is there when all of it is."""

    def __init__(self, path: str) -> None:
        self.path, self.data = path, b""

    def __enter__(self) -> Whole:
        return self

    def write(self, data: bytes) -> None:
        Shaky.strike("write", self.path)
        self.data += bytes(data)

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            part = f"{self.path}.part"
            Path(part).write_bytes(self.data)
            os.replace(part, self.path)


class Schedule:
    """What happens at one operation of a kind, counted from now; a kill is for good, so is what `lasts`."""

    def __init__(self, below: Path, at: int, fault: int | str | Callable[[], None], lasts: bool = False) -> None:
        self.below, self.at, self.fault, self.lasts = str(below), at, fault, lasts
        self.fell = 0

    def __call__(self, what: str, path: str) -> str | None:
        here = threading.current_thread()
        if here is not threading.main_thread() and not here.name.startswith("ThreadPool"):
            return None  # who only watches, or says that the run is alive
        if not path.startswith(self.below) or what not in kinds(self.fault):
            return None
        self.at -= 1
        if self.at >= 0 or (self.fell and not self.lasts and self.fault != "kill"):
            return None
        self.fell += 1
        if self.fault == "kill":
            raise Killed
        if isinstance(self.fault, int):
            raise OSError(self.fault, os.strerror(self.fault), path)
        if callable(self.fault):
            self.fault()
            return None
        return self.fault


def kinds(fault: object) -> tuple[str, ...]:
    """The operations that a fault can befall."""
    if fault in (SHORT, STALE):
        return ("read",) if fault == SHORT else ("list",)
    return CHANGES if fault in ("kill", errno.ENOSPC, errno.EROFS) or callable(fault) else (*CHANGES, *LOOKS)
