"""One Arrow file: whole whenever it is looked at, and told from one that was damaged by a checksum of its columns."""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from dermsearch.errors import UserError, first_line
from dermsearch.regular import bytes_of

CHECKSUM = b"checksum"  # in the metadata of its schema
OPENED = ("tests", "test_predictions")  # tables that are written by `dermsearch test` alone


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Who adds to what is in a folder does it alone; together, where the file system knows no locks."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what then replaces a file: a reader sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):  # on a full disk what is half-written would be in the way
            part.unlink()
        if not isinstance(error, OSError):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write(table: pa.Table, path: str | Path) -> None:
    """Write a table as the whole of a file, with its checksum."""
    plain = table.replace_schema_metadata(None)
    with replacing(Path(path)) as part:
        put(plain, part)  # it is read back for its checksum, and written with that: in memory it may be there but once
        told = checksum(unpacked(mapped(part)))
        put(plain.replace_schema_metadata({CHECKSUM: told.encode()}), part)


def read(path: str | Path) -> pa.Table:
    """A table, without what only its file needs; UserError where it is not what was written."""
    try:
        table = unpacked(bytes_of(path))
        table.validate()
        told = (table.schema.metadata or {}).get(CHECKSUM)
        if told is None:  # a file of an earlier version
            table.validate(full=True)
        elif told != checksum(table).encode():
            raise pa.ArrowInvalid("its checksum is that of another content")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException, UnicodeError) as error:
        raise UserError(f"{path}: is damaged ({first_line(error)}); {mended(Path(path))}") from None
    return table.replace_schema_metadata(None)


def mended(path: Path) -> str:
    """What makes a table again."""
    if path.stem in OPENED:
        return f"take it away, and `dermsearch test {path.parents[1]}` opens the test split again"
    return again(path.parents[1])


def again(folder: Path) -> str:
    """The command that makes the files of a study's folder again."""
    return f"`dermsearch run {folder / 'study.yaml'} --out {folder}` makes it again from what the store has"


def put(table: pa.Table, path: Path) -> None:
    """Write a table as the whole of a file."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with path.open("wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table)


def mapped(path: Path) -> pa.Buffer:
    """The bytes of a file, whatever it is called: pyarrow maps none whose name is no text."""
    with path.open("rb") as file:
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def unpacked(data: bytes | pa.Buffer) -> pa.Table:
    """The table of a file's bytes."""
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def checksum(table: pa.Table) -> str:
    """Of the names, types and bytes of its columns, as they lie in the file."""
    found = zlib.crc32(str(table.schema.remove_metadata()).encode())
    for column in table.columns:
        for chunk in column.chunks:
            parts = [chunk.indices, chunk.dictionary] if isinstance(chunk, pa.DictionaryArray) else [chunk]
            for part in parts:
                found = zlib.crc32(f"{len(part)},{part.offset}".encode(), found)
                for buffer in part.buffers():
                    found = zlib.crc32(b"-" if buffer is None else buffer, found)
    return f"{found:08x}"
