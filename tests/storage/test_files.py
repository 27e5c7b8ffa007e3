"""A folder: what is there, what is read and written, and what it says where it cannot. On S3: tests/e2e/test_s3.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dermsearch.errors import UserError
from dermsearch.storage.files import Folder, StoreLost


@pytest.fixture(params=["path", "uri"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "deep" if request.param == "path" else f"file://{tmp_path}/deep")


def test_files_are_written_listed_read_and_removed(folder: Folder) -> None:
    assert folder.kind() == "none" and folder.names() == [] and folder.get("a/b") is None
    folder.write("a/b", b"\xef\xbb\xbfone")
    folder.write("c", b"two")
    assert folder.names() == ["a/b", "c"] and folder.names("a") == ["a/b"]
    assert set(folder.entries()) == {"a", "c", "preparing"}
    assert [folder.kind(name) for name in ("", "a", "a/b", "d")] == ["folder", "folder", "file", "none"]
    assert folder.text("a/b") == "one" and folder.read("c") == folder.get("c") == b"two"
    assert folder.get("a") is None and folder.get("c/d") is None, "neither is a file"
    with pytest.raises(FileNotFoundError):
        folder.read("d")
    for name in ("a", "c", "c"):
        folder.remove(name)
    assert folder.names() == []
    assert Folder(folder.address).root == folder.root


def test_a_named_pipe_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert Folder(tmp_path).read("pipe.png") == b""


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.path: 'nonsense://bucket/x' cannot be opened: ") as told:
        Folder("nonsense://key:secret@bucket/x", "data.path: ")
    assert "secret" not in str(told.value)


def test_what_cannot_be_written_is_a_sentence(folder: Folder) -> None:
    folder.write("a", b"")
    for name in ("a/b", "preparing"):
        with pytest.raises(StoreLost, match=r"deep' cannot be written to: .*; once it can, the same command continues"):
            folder.write(name, b"")
    with pytest.raises(StoreLost, match=r"deep' cannot be written to: "):
        folder.prepare("a")
