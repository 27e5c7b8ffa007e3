"""A folder: what is there, what is read and written, and what it says where it cannot. On S3: tests/e2e/test_s3.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dermsearch.errors import UserError
from dermsearch.storage.files import Folder, StoreLost, sealed
from dermsearch.storage.stages import StageStore


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


@pytest.mark.parametrize("what", ["pipe", "device", "loop"])
def test_what_is_no_file_makes_nobody_wait(what: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero" if what == "device" else path)
    with pytest.raises(OSError):
        Folder(tmp_path).read("odd.png")
    assert Folder(tmp_path).get("odd.png") is None, "as one that is damaged"
    Folder(tmp_path).write("odd.png", b"whole")
    assert Folder(tmp_path).read("odd.png") == b"whole"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_not_there(name: str, folder: Folder) -> None:
    folder.write("a", b"")
    assert folder.get(name) is None


def test_of_a_link_only_itself_is_removed_and_nothing_moves_through_one(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", Folder(tmp_path / "here")
    outside.mkdir()
    (outside / "mine").write_text("hands off")
    folder.write("a/file", b"1")
    for name in ("link", "a/link"):
        (tmp_path / "here" / name).symlink_to(outside)
    with pytest.raises(OSError, match="nothing is moved through one"):
        folder.move("link/mine", "b/mine")
    with pytest.raises(OSError, match="nothing is moved through one"):
        folder.move("a/file", "link/file")
    folder.move("a", "b/a")
    assert folder.get("b/a/file") == b"1" and (tmp_path / "here/b/a/link").is_symlink()
    folder.remove("link")
    folder.remove("b/a/link")
    assert not (tmp_path / "here" / "link").is_symlink() and [p.name for p in outside.iterdir()] == ["mine"]


def test_names_that_are_no_text_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / os.fsdecode(b"a/\xff")).write_text("")
    assert Folder(tmp_path).listed("a") == {os.fsdecode(b"\xff")} and Folder(tmp_path).listed("b") == set()


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b"9" * 10_000, b'{"a": ' * 10_000, b"", b"null"])
def test_what_is_no_json_of_ours_is_none(data: bytes, folder: Folder) -> None:
    folder.write("a", data)
    assert folder.read_json("a") is None and folder.read_sealed("a") is None


@pytest.mark.parametrize("files", [None, [], {"../a": "0"}, {"": "0"}, {"a\0": "0"}, {"\ud800": "0"}, "missing"])
def test_a_manifest_without_files_of_the_folder_is_none(files: Any, folder: Folder) -> None:
    folder.write("k/manifest.json", sealed({} if files == "missing" else {"files": files}))
    assert folder.told("k") is None and folder.whole("k") is None


def test_no_name_is_not_the_folder_that_the_program_was_started_in(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^compute\.store: is empty; name a folder"):
        StageStore("")
    assert not list(tmp_path.iterdir())


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


def test_an_address_without_a_bucket_is_a_sentence() -> None:
    with pytest.raises(UserError, match="'s3://' cannot be opened: it names no bucket"):
        Folder("s3://")
