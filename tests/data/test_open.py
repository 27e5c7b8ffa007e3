"""Built-in cases that were damaged on the disk are drawn again; what somebody prepared is never deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dermsearch.data.open import drop_damaged, open_cases, store_folder
from dermsearch.data.store.layout import INDEX, MANIFEST, QUARANTINE
from dermsearch.data.store.unfinished import held
from dermsearch.errors import UserError
from dermsearch.study.data import Data

DATA = Data(cases=40, size=32)
SHARD = "images-00000.arrow"


def flip(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is in the files of the built-in cases."""
    folder = open_cases(DATA, tmp_path_factory.mktemp("whole")).folder
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lay(bits: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in bits.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", [MANIFEST, INDEX, SHARD, QUARANTINE])
@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_damaged_cases_are_drawn_again(
    damage: Callable[[Path], None], name: str, bits: dict[str, bytes], tmp_path: Path
) -> None:
    folder = lay(bits, store_folder(DATA, tmp_path))
    damage(folder / name)
    drop_damaged(DATA, tmp_path)
    assert not folder.exists()


def test_cases_whose_manifest_is_gone_are_drawn_again(bits: dict[str, bytes], tmp_path: Path) -> None:
    """By whoever opens them, as the page on stores promises."""
    folder = lay(bits, store_folder(DATA, tmp_path))
    (folder / MANIFEST).unlink()
    (folder / INDEX).write_bytes(b"another")
    open_cases(DATA, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bits


def test_of_a_damaged_store_behind_a_link_the_link_alone_is_deleted(bits: dict[str, bytes], tmp_path: Path) -> None:
    real, link = lay(bits, tmp_path / "real"), store_folder(DATA, tmp_path / "data")
    flip(real / SHARD)
    link.parent.mkdir()
    link.symlink_to(real)
    drop_damaged(DATA, tmp_path / "data")
    assert not link.is_symlink() and {path.name for path in real.iterdir()} == set(bits)
    assert open_cases(DATA, tmp_path / "data").folder == link and not link.is_symlink()


def test_a_file_where_the_cases_are_to_lie_gives_way(tmp_path: Path) -> None:
    store_folder(DATA, tmp_path).write_bytes(b"a file")
    assert len(open_cases(DATA, tmp_path)) == DATA.cases


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_where_the_folder_of_cases_is_to_lie_is_named(below: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file")
    with pytest.raises(UserError, match=f"{tmp_path / 'data' / below}: built-in cases cannot be written there"):
        open_cases(DATA, tmp_path / "data" / below)


def test_a_damaged_store_that_cannot_be_deleted_is_named(
    bits: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it belongs to another user."""

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = lay(bits, store_folder(DATA, tmp_path))
    flip(folder / SHARD)
    monkeypatch.setattr("shutil.rmtree", denied)
    with pytest.raises(UserError, match=f"{folder}: holds damaged built-in cases and cannot be deleted"):
        drop_damaged(DATA, tmp_path)


def test_what_killed_runs_left_is_cleared_and_what_others_are_at_is_not(tmp_path: Path) -> None:
    left, busy, other = tmp_path / ".synthetic-9x9-a.1", tmp_path / ".synthetic-9x9-a.2", tmp_path / ".mine"
    for folder in (left, busy, other):
        folder.mkdir()
        (folder / "images-00000.arrow").write_bytes(b"half of it")
    with held(busy):
        open_cases(DATA, tmp_path)
    assert {path.name for path in tmp_path.glob(".*")} == {busy.name, other.name}


def test_sound_cases_stay_and_none_are_no_fault(bits: dict[str, bytes], tmp_path: Path) -> None:
    drop_damaged(DATA, tmp_path)
    folder = lay(bits, store_folder(DATA, tmp_path))
    drop_damaged(DATA, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bits


def test_a_prepared_store_is_not_deleted(bits: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay(bits, tmp_path / "mine")
    flip(folder / SHARD)
    drop_damaged(Data(source="store", path=str(folder), size=32), tmp_path)
    assert {path.name for path in folder.iterdir()} == set(bits)
