"""A folder, local or on any pyarrow filesystem: its files are listed, read, sealed by checksums, and appear whole.

What is damaged counts as missing; a folder that is full or out of reach is `StoreLost`, never taken for an empty one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from dermsearch.delimited import decoded
from dermsearch.errors import UserError, first_line, public
from dermsearch.regular import without_waiting

OBJECT_STORES = ("s3", "gcs", "abfs")  # nothing can be renamed there, and what is written appears whole
PARTS = "preparing"  # elsewhere files grow in here until they are whole
MANIFEST = "manifest.json"
READERS = 16  # files that are read at once: a remote folder answers slowly, but many at a time
ATTEMPTS = 3  # at a commit: two processes that write the same folder at once may spoil it for each other
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError)  # the last: nothing is called so
DAMAGED = (errno.EIO, errno.ELOOP, errno.ENXIO)  # of one file: the disk cannot give it, or it is none
T = TypeVar("T")


class StoreLost(UserError):
    """A folder is full, out of reach or damaged while it is needed: nothing has failed, but nothing can go on."""


class Folder:
    """`where` is a path or a URI such as s3://bucket/data; `field` stands before it in messages.

    Names in it are relative, with forward slashes.
    """

    waits: Sequence[float] = ()  # seconds between the attempts to reach a remote one

    def __init__(self, where: str | Path, field: str = "") -> None:
        self.where, self.field = public(str(where)), field  # as messages show it
        if not str(where):  # which would be the folder that the program was started in
            raise UserError(f"{field}is empty; name a folder, or a URI such as s3://bucket/stages")
        try:
            if "://" in str(where):
                self.fs, self.root = pafs.FileSystem.from_uri(str(where))
            else:
                self.fs, self.root = pafs.LocalFileSystem(), str(Path(where).expanduser().absolute())
            self.root.encode()  # a name that is no Unicode
            if not self.root:
                raise ValueError("it names no bucket")
        except Exception as error:  # pyarrow raises many kinds for one mistake: this is no place
            raise UserError(f"{field}'{self.where}' cannot be opened: {first_line(error)}") from None
        self.local = Path(self.root) if isinstance(self.fs, pafs.LocalFileSystem) else None
        self.address = self.root if self.local else str(where)  # opens the same from any working folder and node

    def prepare(self, folder: str) -> None:
        """Make a folder in it; where nothing can be written, it is refused at once."""
        probe = f"{PARTS}/{uuid.uuid4().hex}"
        try:
            self.fs.create_dir(self._path(folder), recursive=True)
            self._write(probe, b"")
            self.remove(probe)
        except Exception as error:
            raise StoreLost(f"{self.field}'{self.where}' cannot be written to: {first_line(error)}") from None

    # What is there -----------------------------------------------------------------------------------------

    def kind(self, name: str = "") -> str:
        """file, folder or none."""
        return self._patiently("reached", lambda: self._kind(name))

    def _kind(self, name: str) -> str:
        kinds = {pafs.FileType.File: "file", pafs.FileType.Directory: "folder"}
        return kinds.get(self.fs.get_file_info(self._path(name)).type, "none")

    def entries(self, under: str = "", recursive: bool = False, must: bool = False) -> dict[str, pafs.FileInfo]:
        """Files and folders in it or in one below, by name; that one need not be there, unless it must."""
        chosen = pafs.FileSelector(self._path(under), recursive=recursive, allow_not_found=not must)
        start = len(self.root.rstrip("/")) + 1
        infos = self._patiently("listed", lambda: self.fs.get_file_info(chosen))
        return {_path_of(info)[start:]: info for info in infos}

    def listed(self, under: str, must: bool = False) -> set[str]:
        """The names of what is in a folder, links and all; it need not be there, unless it must."""
        if self.local is None:
            return {info.base_name for info in self.entries(under, must=must).values()}
        try:
            return set(os.listdir(self._path(under)))
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not must:
                return set()
            raise self._lost("listed", error) from None

    def names(self, under: str = "") -> list[str]:
        """Every file below, sorted."""
        infos = self.entries(under, recursive=True).items()
        return sorted(name for name, info in infos if info.type == pafs.FileType.File)

    # Reading -----------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError where there is none."""
        if self.local is not None:  # many small files: twice as fast as through pyarrow
            with open(self._path(name), "rb", opener=without_waiting) as file:
                return file.read()
        with self.fs.open_input_stream(self._path(name)) as stream:
            return stream.read()

    def get(self, name: str, patient: bool = True) -> bytes | None:
        """The bytes of a file, or None where there is none or the disk cannot give them."""

        def read() -> bytes | None:
            try:
                return self.read(name)
            except MISSING:
                return None
            except OSError as error:
                if error.errno in DAMAGED and self.local:
                    return None
                raise

        return self._patiently("read", read, patient)

    def text(self, name: str) -> str:
        """A text file, in UTF-8 with or without a byte order mark."""
        try:
            return decoded(self.read(name), f"{self.where}: {name}")
        except FileNotFoundError:
            raise UserError(f"{self.where}: has no {name}") from None
        except OSError as error:
            raise UserError(f"{self.where}: {name} cannot be read: {first_line(error)}") from None

    def read_json(self, name: str) -> Any:
        """A file's content, or None where there is none or it is no JSON."""
        return parsed(self.get(name))

    def read_sealed(self, name: str) -> dict[str, Any] | None:
        """What was written with its checksum; None where there is none, it is damaged or names another file."""
        return named(unsealed(self.read_json(name)), name)

    # Writing -----------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """A file appears whole under its name."""
        self._patiently("written to", lambda: self._write(name, data))

    def _write(self, name: str, data: bytes | pa.Buffer) -> None:
        path, part = self._path(name), self._path(f"{PARTS}/{uuid.uuid4().hex}.part")
        if self.fs.type_name in OBJECT_STORES:
            with self.fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        for folder in (os.path.dirname(path), os.path.dirname(part)):
            self.fs.create_dir(folder, recursive=True)
        try:
            with self.fs.open_output_stream(part) as stream:
                stream.write(data)
            self.fs.move(part, path)
        except OSError:
            with suppress(OSError):  # on a full disk what is half-written would be in the way
                self.fs.delete_file(part)
            raise

    def remove(self, name: str) -> None:
        """A file, or a folder and all in it; nothing where there is none. OSError where it cannot be.

        Of a link itself: what it points to stays.
        """
        if self.local is not None and os.path.islink(self._path(name)):
            os.unlink(self._path(name))
            return
        kind = self._kind(name)
        if kind == "folder":
            self.fs.delete_dir(self._path(name))
        elif kind == "file":
            self.fs.delete_file(self._path(name))

    def move(self, name: str, to: str) -> None:
        """A file, or a folder and all in it, to a name that nothing has. OSError where it cannot be."""
        missing = FileNotFoundError(errno.ENOENT, "is not there", name)
        if self.local is not None:  # a link as it is, whatever it points to
            for each in (name, to):
                for parent in Path(each).parents[:-1]:
                    if os.path.islink(self._path(str(parent))):
                        raise OSError(errno.ELOOP, "is a link, and nothing is moved through one", str(parent))
            if not os.path.lexists(self._path(name)):
                raise missing
            os.makedirs(os.path.dirname(self._path(to)), exist_ok=True)
            os.rename(self._path(name), self._path(to))
            return
        kind = self._kind(name)
        if kind == "none":
            raise missing
        inside = self.names(name) if kind == "folder" else [name]
        for file in sorted(inside, key=lambda file: (not file.endswith(f"/{MANIFEST}"), file)):
            self.fs.create_dir(os.path.dirname(self._path(to + file.removeprefix(name))), recursive=True)
            self.fs.move(self._path(file), self._path(to + file.removeprefix(name)))
        self.remove(name)

    # Folders with a manifest -------------------------------------------------------------------------------

    def commit_files(self, folder: str, files: dict[str, bytes], about: dict[str, Any]) -> None:
        """Files, then what they are: a folder counts from the moment its manifest is there."""
        sums = {name: checksum(data) for name, data in files.items()}
        manifest = sealed({**about, "name": f"{folder}/{MANIFEST}", "files": sums})
        for _ in range(ATTEMPTS):
            if self.whole(folder) is not None:  # by now, or because another process was faster
                return
            for name, data in files.items():
                self.write(f"{folder}/{name}", data)
            self.write(f"{folder}/{MANIFEST}", manifest)
        if self.whole(folder) is None:
            raise StoreLost(f"{self.field}'{self.where}' does not keep what is written to it")

    def told(self, folder: str) -> dict[str, Any] | None:
        """The folder's manifest, if it is one and this folder's own, whatever became of the files."""
        manifest = self.read_sealed(f"{folder}/{MANIFEST}")
        files = (manifest or {}).get("files")
        return manifest if isinstance(files, dict) and all(map(plain, files)) else None

    def whole(self, folder: str) -> dict[str, Any] | None:
        """The folder's manifest, if all of its files are what they were."""
        manifest = self.told(folder)
        if manifest is None or any(self.checked(folder, name, manifest) is None for name in manifest["files"]):
            return None
        return manifest

    def checked(self, folder: str, name: str, manifest: dict[str, Any]) -> bytes | None:
        """A file of the folder, if it is what its manifest says."""
        data = self.get(f"{folder}/{name}")
        return data if data is not None and checksum(data) == manifest["files"].get(name) else None

    # -------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _patiently(self, use: str, do: Callable[[], T], patient: bool = True) -> T:
        """Do it; where the folder is remote and out of reach, again and again as long as it has patience."""
        waits = list(self.waits) if patient and self.local is None else []
        while True:
            try:
                return do()
            except OSError as error:
                if not waits:
                    raise self._lost(use, error) from None
            time.sleep(waits.pop(0))

    def _lost(self, use: str, error: OSError) -> StoreLost:
        said = f"{self.field}'{self.where}' cannot be {use}: {first_line(error)}"
        return StoreLost(f"{said}; once it can, the same command continues")


def within(where: str, name: str) -> str:
    """The path or URI of a folder in that one; what is asked of a URI's file system stays behind it."""
    path, question, options = where.partition("?")
    return f"{path.rstrip('/')}/{name}{question}{options}" if "://" in where else f"{where}/{name}"


def sealed(content: dict[str, Any]) -> bytes:
    """JSON with its checksum in it."""
    return json.dumps({**content, "checksum": of_itself(content)}).encode()


def unsealed(content: Any) -> dict[str, Any] | None:
    """The content of sealed JSON, or None where it is not what was sealed."""
    try:
        return content if isinstance(content, dict) and content.get("checksum") == of_itself(content) else None
    except RecursionError:
        return None


def named(content: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """The content if it says that it is the file of that name: a copy of another one is not believed.

    What was written before files knew their names says nothing, and is taken for what it stands as.
    """
    return content if content is None or content.get("name", name) == name else None


def parsed(data: bytes | str | None) -> Any:
    """JSON, or None where it is none, or too deep to be ours."""
    try:
        return None if data is None else json.loads(data)
    except (ValueError, TypeError, RecursionError):
        return None


def plain(name: str) -> bool:
    """Can it be the name of a file of ours, which stays in its folder?"""
    return name.isprintable() and "/" not in name and name not in ("", ".", "..")


def of_itself(content: dict[str, Any]) -> str:
    """The checksum of what a file holds beside its checksum."""
    return checksum(json.dumps({k: v for k, v in content.items() if k != "checksum"}, sort_keys=True).encode())


def checksum(data: bytes) -> str:
    """16 hex digits of blake2b."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _path_of(info: pafs.FileInfo) -> str:
    try:
        return info.path
    except UnicodeDecodeError as error:
        raise UserError(f"{error.object!r}: this name is not UTF-8; rename the file") from None
