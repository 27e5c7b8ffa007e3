"""What an interrupted preparation left, damaged meanwhile: it is noticed, said and made anew."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data.damage import CASES, JPEG, Copy, encode, picture

from dermsearch.data.inspect.check import check
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import PLAN, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.prepare.shard import head_file, make_shard
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import shard_file
from dermsearch.errors import UserError

HALF = CASES // 4  # of the shards, which hold two cases each


class Stopped(Exception):
    """As a kill between two shards."""


class Told(Watcher):
    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"


@pytest.fixture
def half(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of four shards of which two were made."""
    monkeypatch.setattr("dermsearch.data.prepare.prepare.shard_cases", lambda side, planes: 2)

    def stop(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from map(make_shard, jobs[:HALF])
        raise Stopped

    with pytest.raises(Stopped):
        prepare(copy.order(), stop, Watcher())
    return Path(copy.order().store)


def finished(copy: Copy) -> str:
    """What the same command says; its store must be sound."""
    told = Told()
    prepare(copy.order(), on_cores(1), told)
    assert not check(copy.order().store).failed
    return told.text


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = [Path.unlink, flip, shorten, empty]


def test_what_is_whole_is_not_made_again(half: Path, copy: Copy) -> None:
    assert finished(copy) == f"Continuing: {HALF} of 4 shards are there.\n"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [shard_file(0), head_file(0)])
def test_a_damaged_shard_or_head_is_made_anew(
    damage: Callable[[Path], None], name: str, half: Path, copy: Copy
) -> None:
    damage(half / name)
    said = finished(copy)
    assert f"Continuing: {HALF - 1} of 4 shards are there." in said
    assert ("Made anew" in said) == (name == shard_file(0) or damage is not Path.unlink)


@pytest.mark.parametrize("damage", DAMAGE[1:])
def test_a_damaged_plan_begins_anew(damage: Callable[[Path], None], half: Path, copy: Copy) -> None:
    damage(half / PLAN)
    assert "made anew" in finished(copy)


@pytest.mark.parametrize("name", ["c1.jpg", "c6.jpg"])
def test_an_image_that_changed_meanwhile_is_read_again(name: str, half: Path, copy: Copy) -> None:
    """c1 is of a shard that was made, c6 of one that was not."""
    (copy.root / name).write_bytes(encode(picture(99)))
    said = finished(copy)
    assert ("Made anew, as damaged or of images that were changed since: 1 shard." in said) == (name == "c1.jpg")
    store = CaseStore(copy.order().store)
    files = dict(zip(store.strings("case").tolist(), store.index["file_derm"].to_pylist(), strict=True))
    other = replace(copy.order(), store=str(copy.root.parent / "other"))
    prepare(other, on_cores(1), Watcher())
    again = CaseStore(other.store)
    assert files == dict(zip(again.strings("case").tolist(), again.index["file_derm"].to_pylist(), strict=True))
    assert store.fingerprint == again.fingerprint


def test_of_two_commands_for_one_store_the_second_is_refused(copy: Copy) -> None:
    """And the first is not disturbed."""
    began, go = threading.Event(), threading.Event()

    def slow(jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        began.set()
        assert go.wait(300)
        yield from map(make_shard, jobs)

    first = threading.Thread(target=prepare, args=(copy.order(), slow, Watcher()))
    first.start()
    try:
        assert began.wait(300)
        with pytest.raises(UserError, match="another command is preparing it; wait until it is done"):
            prepare(copy.order(), on_cores(1), Watcher())
    finally:
        go.set()
        first.join()
    assert not check(copy.order().store).failed
    assert finished(copy) == "", "it is there already"


def test_a_release_where_a_kill_left_no_plan_is_not_taken_for_a_used_folder(half: Path, copy: Copy) -> None:
    """What is not of this plan is deleted, the plan last, so that a kill in between leaves a plan."""
    copy.image("x.jpg", JPEG)
    copy.save()
    assert "made anew" in finished(copy)
