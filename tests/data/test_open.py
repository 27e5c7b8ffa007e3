"""Built-in cases that were damaged on the disk are drawn again; what somebody prepared is never deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dermsearch.data.open import drop_damaged, is_made, open_cases, store_folder
from dermsearch.data.store.layout import INDEX, MANIFEST, QUARANTINE
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
    assert not is_made(DATA, tmp_path) and (not folder.exists() or name == MANIFEST)


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
