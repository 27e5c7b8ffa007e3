"""A folder that grows is its process's own from the start, whoever clears up beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from dermsearch.cli.main import DENIED
from dermsearch.data.store.unfinished import clear, growing, held
from dermsearch.errors import UserError


@pytest.mark.parametrize("done", [True, False])
def test_who_clears_up_may_come_before_a_new_folder_is_held(
    done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, taken = tempfile.mkdtemp, list[Any]()

    def cleared(*args: Any, **more: Any) -> str:
        part = make(*args, **more)
        if not taken:  # of the first folder
            taken.append(held(Path(part)))
            clear(tmp_path, ".z.*") if done else taken[0].__enter__()
        return part

    monkeypatch.setattr(tempfile, "mkdtemp", cleared)
    with growing(tmp_path / "z") as part:
        (part / "a").write_bytes(b"")
        clear(tmp_path, ".z.*")
        assert (part / "a").is_file() and len(list(tmp_path.iterdir())) == (1 if done else 2)
    assert taken and not part.exists()
    if not done:
        taken[0].__exit__(None, None, None)


def test_what_grew_is_deleted_unless_it_was_put_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(KeyError), growing(tmp_path / "z"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with growing(tmp_path / "z") as part:
        part.rename(tmp_path / "z")
    assert [p.name for p in tmp_path.iterdir()] == ["z"]


@pytest.mark.parametrize("below", ["file/z", "file/deep/z"])
def test_a_file_in_the_way_is_said_as_one(below: str, tmp_path: Path) -> None:
    """By an error that every command makes a sentence of."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError) as raised, growing(tmp_path / below):
        pass
    assert raised.value.errno in DENIED and "file" in str(raised.value.filename)


def test_where_no_folder_can_be_made_is_told() -> None:
    with (
        pytest.raises(UserError, match="/proc/z: no folder can be made in /proc; choose another place"),
        growing(Path("/proc/z")),
    ):
        pass
