"""A folder, local or on any pyarrow filesystem, whose files appear whole and are known by their checksums.

What is damaged counts as missing. A place that is full or out of reach is `StoreLost`, never mistaken for an empty one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from dermsearch.errors import UserError, first_line
from dermsearch.storage.files import opened, put, shown

MANIFEST = "manifest.json"
READERS = 16  # files that are read at once: a remote place answers slowly, but many at a time
WAITS = (1, 2, 4, 8, 15, 30)  # seconds between the attempts to reach a remote place
ATTEMPTS = 3  # at a commit: two processes that write the same folder at once may spoil it for each other
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
T = TypeVar("T")


class StoreLost(UserError):
    """The store is full, out of reach or damaged under a running study: no stage failed, but none can go on."""


class Place:
    """`where` is a path or a URI; `field` stands before its name in messages."""

    def __init__(self, where: str, field: str = "") -> None:
        self.where, self.field = where, field
        self.shown = shown(where)
        self.fs, self.root = opened(where, field)

    def prepare(self, folder: str) -> None:
        """Make the folder in it; a place that cannot be written to is refused at once."""
        try:
            self.fs.create_dir(f"{self.root}/{folder}", recursive=True)
            probe = f"partial/{uuid.uuid4().hex}"
            self._write(f"{probe}/writable", b"")
            self.remove(probe)
        except Exception as error:
            raise StoreLost(f"{self.field}'{self.shown}' cannot be written to: {first_line(error)}") from None

    def has_folder(self, folder: str) -> bool:
        """Is it there?"""
        try:
            return self.fs.get_file_info(f"{self.root}/{folder}").type == pafs.FileType.Directory
        except OSError as error:
            raise UserError(f"{self.field}'{self.shown}' cannot be opened: {first_line(error)}") from None

    @property
    def local(self) -> Path | None:
        """The folder, where the place is one."""
        return Path(self.root) if isinstance(self.fs, pafs.LocalFileSystem) else None

    @property
    def address(self) -> str:
        """What opens the same place from any working folder and node."""
        return self.root if self.local else self.where

    # Single files ------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """A file appears whole under its name."""
        self._patiently("written to", lambda: self._write(name, data))

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self.root}/{name}"
        put(self.fs, path, data, f"{path}.{uuid.uuid4().hex[:8]}.part")

    def read(self, name: str, patient: bool = True) -> bytes | None:
        """The file's bytes, or None where there is none or the disk cannot give them."""

        def do() -> bytes:
            with self.fs.open_input_file(f"{self.root}/{name}") as f:
                return f.read()

        try:
            return self._patiently("read", do, patient)
        except MISSING:
            return None

    def _patiently(self, use: str, do: Callable[[], T], patient: bool = True) -> T:
        """Do it; where the place is remote and out of reach, again and again for a minute."""
        waits = list(WAITS) if patient and self.local is None else []
        while True:
            try:
                return do()
            except MISSING:
                raise
            except OSError as error:
                if error.errno == errno.EIO and use == "read" and self.local:  # of this file alone: it is damaged
                    raise FileNotFoundError from None
                if not waits:
                    said = f"{self.field}'{self.shown}' can no longer be {use}: {first_line(error)}"
                    raise StoreLost(f"{said}; once it can, the same command continues") from None
            time.sleep(waits.pop(0))

    def read_json(self, name: str) -> Any:
        """The file's content, or None where there is none or it is no JSON."""
        data = self.read(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None

    def read_sealed(self, name: str) -> dict[str, Any] | None:
        """What was written with its checksum; None where there is none or it is damaged."""
        return unsealed(self.read_json(name))

    # Folders with a manifest -------------------------------------------------------------------------------

    def commit_files(self, folder: str, files: dict[str, bytes], about: dict[str, Any]) -> None:
        """Files, then what they are: a folder counts from the moment its manifest is there."""
        manifest = sealed({**about, "files": {name: checksum(data) for name, data in files.items()}})
        for _ in range(ATTEMPTS):
            if self.whole(folder) is not None:  # by now, or because another process was faster
                return
            for name, data in files.items():
                self.write(f"{folder}/{name}", data)
            self.write(f"{folder}/{MANIFEST}", manifest)
        if self.whole(folder) is None:
            raise StoreLost(f"{self.field}'{self.shown}' does not keep what is written to it")

    def whole(self, folder: str) -> dict[str, Any] | None:
        """The folder's manifest, if all of its files are what they were."""
        manifest = self.read_sealed(f"{folder}/{MANIFEST}")
        if manifest is None or any(self.checked(folder, name, manifest) is None for name in manifest["files"]):
            return None
        return manifest

    def checked(self, folder: str, name: str, manifest: dict[str, Any]) -> bytes | None:
        """A file of the folder, if it is what its manifest says."""
        data = self.read(f"{folder}/{name}")
        return data if data is not None and checksum(data) == manifest["files"].get(name) else None

    # What is no longer needed ------------------------------------------------------------------------------

    def remove(self, folder: str) -> None:
        """Delete a folder, if it is there."""
        try:
            self.fs.delete_dir(f"{self.root}/{folder}")
        except OSError:
            return  # it never was, or another process was faster

    def remove_file(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            self.fs.delete_file(f"{self.root}/{name}")
        except OSError:
            return


def sealed(content: dict[str, Any]) -> bytes:
    """JSON with its checksum in it."""
    return json.dumps({**content, "checksum": of_itself(content)}).encode()


def unsealed(found: Any) -> dict[str, Any] | None:
    """The content of sealed JSON, or None where it is not what was sealed."""
    return found if isinstance(found, dict) and found.get("checksum") == of_itself(found) else None


def of_itself(content: dict[str, Any]) -> str:
    """The checksum of what a file holds beside its checksum."""
    return checksum(json.dumps({k: v for k, v in content.items() if k != "checksum"}, sort_keys=True).encode())


def checksum(data: bytes) -> str:
    """16 hex digits of blake2b."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
