"""A folder on any pyarrow filesystem, local or not: listed, read, and written so that a file appears whole."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from dermsearch.errors import UserError, first_line

OBJECT_STORES = ("s3", "gcs", "abfs")  # nothing can be renamed there, and what is written appears whole
PARTS = "preparing"  # elsewhere files grow in here until they are whole; whoever finishes a store removes it


SECRET = re.compile(r"://[^/@]*@")  # s3://key:secret@bucket


class Folder:
    """`where` is a path or a URI such as s3://bucket/data. Names in it are relative, with forward slashes."""

    def __init__(self, where: str | Path) -> None:
        self.where = shown(where)
        self.fs, self.root = opened(where)

    @property
    def local(self) -> Path | None:
        """The path, where the folder is on this machine."""
        return Path(self.root) if isinstance(self.fs, pafs.LocalFileSystem) else None

    def kind(self, name: str = "") -> str:
        """file, folder or none."""
        try:
            found = self.fs.get_file_info(self._path(name)).type
        except OSError as error:
            raise UserError(f"'{self.where}' cannot be reached: {first_line(error)}") from None
        return {pafs.FileType.File: "file", pafs.FileType.Directory: "folder"}.get(found, "none")

    def names(self, under: str = "") -> list[str]:
        """Every file below, recursively, sorted."""
        selector = pafs.FileSelector(self._path(under), recursive=True, allow_not_found=True)
        try:
            found = self.fs.get_file_info(selector)
        except OSError as error:
            raise UserError(f"'{self.where}' cannot be listed: {first_line(error)}") from None
        start = len(self.root.rstrip("/")) + 1
        return sorted(f.path[start:] for f in found if f.type == pafs.FileType.File)

    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError where there is none."""
        if isinstance(self.fs, pafs.LocalFileSystem):  # many small files: twice as fast
            with open(self._path(name), "rb", opener=_without_waiting) as file:
                return file.read()
        with self.fs.open_input_stream(self._path(name)) as stream:
            return stream.read()

    def text(self, name: str) -> str:
        """A text file, in UTF-8 with or without a byte order mark."""
        try:
            return self.read(name).decode("utf-8-sig")
        except FileNotFoundError:
            raise UserError(f"{self.where}: has no {name}") from None
        except OSError as error:
            raise UserError(f"{self.where}: {name} cannot be read: {first_line(error)}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise UserError(f"{self.where}: {name}, line {line}: is not UTF-8 text; save it as UTF-8") from None

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """A file appears whole under its name."""
        path = self._path(name)
        try:
            put(self.fs, path, data, self._path(f"{PARTS}/{uuid.uuid4().hex}.part"))
        except OSError as error:
            raise UserError(f"'{self.where}' cannot be written to: {first_line(error)}") from None

    def remove(self, name: str) -> None:
        """A file, or a folder and all in it; nothing where there is none."""
        kind = self.kind(name)
        if kind == "folder":
            self.fs.delete_dir(self._path(name))
        elif kind == "file":
            self.fs.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


def opened(where: str | Path, field: str = "") -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the folder's path on it. `field` stands before its name in messages."""
    text = str(where)
    try:
        if "://" in text:
            fs, root = pafs.FileSystem.from_uri(text)
            return fs, root
        return pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    except Exception as error:  # pyarrow raises many kinds for one mistake: this is no place
        raise UserError(f"{field}'{shown(where)}' cannot be opened: {first_line(error)}") from None


def within(where: str, name: str) -> str:
    """The path or URI of a folder in that one; what is asked of a URI's file system stays behind it."""
    path, question, options = where.partition("?")
    return f"{path.rstrip('/')}/{name}{question}{options}" if "://" in where else f"{where}/{name}"


def shown(where: str | Path) -> str:
    """A path or URI as messages show it."""
    return SECRET.sub("://", str(where))


def put(fs: pafs.FileSystem, path: str, data: bytes | pa.Buffer, part: str) -> None:
    """Write a file so that it appears whole under its name; elsewhere than on object stores it grows as `part`."""
    if fs.type_name in OBJECT_STORES:
        _stream(fs, path, data)
        return
    for folder in {os.path.dirname(path), os.path.dirname(part)}:
        fs.create_dir(folder, recursive=True)
    try:
        _stream(fs, part, data)
        fs.move(part, path)
    except OSError:
        with suppress(OSError):  # on a full disk what is half-written would be in the way
            fs.delete_file(part)
        raise


def _stream(fs: pafs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    with fs.open_output_stream(path) as stream:
        stream.write(data)


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe would make a reader wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
