"""A release of which nothing can be made, or a command that cannot be followed, ends in one sentence."""

import csv
import errno
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from data.damage import (
    CASES,
    COLUMNS,
    JPEG,
    Copy,
    make,
    pixels,
    quarantine,
)

from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import BAD, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.errors import UserError

# A release of which nothing can be made, or a command that cannot be followed: one sentence.

REFUSED: list[Any] = []
Change = Callable[[Copy], dict[str, Any] | None]


def refused(message: str, *marks: pytest.MarkDecorator) -> Callable[[Change], Change]:
    def add(do: Change) -> Change:
        REFUSED.append(pytest.param(do, message, id=do.__name__, marks=marks))
        return do

    return add


@refused("cases.csv, line 5: is not UTF-8 text")
def latin_letters(copy: Copy) -> None:
    copy.table.write_bytes(copy.table.read_bytes().replace(b"c3.jpg", b"\xe9.jpg"))


@refused("is not UTF-8 text")
def table_in_utf_16(copy: Copy) -> None:
    copy.table.write_bytes(copy.table.read_text().encode("utf-16"))


@refused("cases.csv, line ")
def quote_without_end(copy: Copy) -> None:
    copy.table.write_text(copy.table.read_text().replace("c3.jpg", '"c3.jpg'))


@refused("cases.csv is empty")
def empty_table(copy: Copy) -> None:
    copy.table.write_bytes(b"")


@refused("no case of a table of your own in it")
def header_alone(copy: Copy) -> None:
    copy.table.write_text(copy.table.read_text().splitlines()[0])


@refused("has no column 'image'; did you mean 'images'?")
def other_column(copy: Copy) -> None:
    copy.table.write_text(copy.table.read_text().replace("id,image,", "id,images,"))


@refused("has 2 columns 'image'; one is right")
def column_twice(copy: Copy) -> None:
    copy.table.write_text(copy.table.read_text().replace("photo", "image"))


@refused("has no .csv table")
def no_table(copy: Copy) -> None:
    copy.table.unlink()


@refused("has several tables, name one of them: b.csv, cases.csv")
def two_tables(copy: Copy) -> None:
    (copy.root / "b.csv").write_text("x")


@refused("has no .csv table")
def empty_release(copy: Copy) -> None:
    for path in copy.root.iterdir():
        path.unlink()


@refused("this name is not UTF-8; rename the file")
def name_of_latin_letters(copy: Copy) -> None:
    (copy.root / os.fsdecode(b"\xe9.jpg")).write_bytes(JPEG)


@refused("cannot be opened")
def release_of_latin_letters(copy: Copy) -> dict[str, Any]:
    return {"release": str(copy.root / os.fsdecode(b"\xe9"))}


@refused("there is no such folder")
def no_release(copy: Copy) -> dict[str, Any]:
    return {"release": str(copy.root / "nowhere")}


@refused("release/c0.jpg")
def release_that_is_a_file(copy: Copy) -> dict[str, Any]:
    return {"release": str(copy.root / "c0.jpg")}


@refused("'ham1000' is not a data set that dermsearch knows; did you mean 'ham10000'?")
def unknown_data_set(copy: Copy) -> dict[str, Any]:
    return {"source": "ham1000"}


@refused("is not empty and holds no case store; choose another folder with -o")
def output_in_use(copy: Copy) -> dict[str, Any]:
    return {"store": str(copy.root)}


@refused("release/c0.jpg")
def output_that_is_a_file(copy: Copy) -> dict[str, Any]:
    return {"store": str(copy.root / "c0.jpg")}


@refused("cannot be written")
def output_below_a_file(copy: Copy) -> dict[str, Any]:
    return {"store": str(copy.root / "c0.jpg" / "store")}


@refused("cannot be written")
def output_not_permitted(copy: Copy) -> dict[str, Any]:
    if os.geteuid() == 0:
        return {"store": "/proc/store"}
    copy.root.parent.chmod(0o500)
    return {}


@refused("8 of 8 cases have a bad image or row")
def all_images_missing(copy: Copy) -> None:
    for path in copy.root.glob("*.jpg"):
        path.unlink()


@refused("no image could be used; the first reason: c0.jpg is empty")
def all_images_bad(copy: Copy) -> dict[str, Any]:
    for path in copy.root.glob("*.jpg"):
        path.write_bytes(b"")
    return {"max_bad": 1.0}


@pytest.mark.parametrize(("do", "message"), REFUSED)
def test_a_release_or_command_that_is_refused(do: Change, message: str, copy: Copy) -> None:
    order = replace(copy.order(), **(do(copy) or {}))
    with pytest.raises(UserError) as caught:
        prepare(order, on_cores(1), Watcher())
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 500, text


# How much may be bad, and what a second command finds.


def lose(copy: Copy, *numbers: int) -> None:
    for n in numbers:
        (copy.root / f"c{n}.jpg").unlink()


def test_more_bad_images_than_allowed_are_counted_and_listed(copy: Copy) -> None:
    lose(copy, 1, 2)
    (copy.root / "c5.jpg").write_bytes(JPEG[:300])
    with pytest.raises(UserError) as caught:
        make(copy.order(max_bad=0.25))
    text = str(caught.value)
    assert "3 of 8 cases have a bad image or row, more than --max-bad 0.25 allows" in text
    assert "2 x 'is missing', 1 x 'is truncated'; the first is c1.jpg" in text
    assert "--allow-missing goes on" in text
    listed = list(csv.DictReader((copy.root.parent / "store" / BAD).open()))
    assert [(r["case"], r["reason"]) for r in listed] == [
        ("c1", "is missing"),
        ("c2", "is missing"),
        ("c5", "is truncated"),
    ]
    assert {r["where"] for r in listed} == {f"cases.csv, line {n + 2}" for n in (1, 2, 5)}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_listed_cell_is_no_formula(start: str, copy: Copy) -> None:
    """Of a table that a spreadsheet may open, whatever a release's table holds."""
    copy.victim["id"] = f"{start}cmd|' /C calc'!A0"
    copy.save()
    with pytest.raises(UserError):
        make(copy.order(max_bad=0.0))
    text = (copy.root.parent / "store" / BAD).read_text()
    assert not any(cell[:1] in tuple("=+-@\t\r") for row in csv.reader(text.splitlines()) for cell in row if cell)
    assert start.strip() == "" or f"'{start}cmd" in text


def test_no_more_processes_is_one_sentence(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("dermsearch.data.prepare.prepare.shard_cases", lambda side, planes: 2)
    monkeypatch.setattr("subprocess.Popen", none)
    with pytest.raises(
        UserError, match=r"no more processes can be started here: .*Resource temporarily unavailable; try --workers 1"
    ):
        prepare(copy.order(), on_cores(2), Watcher())


def test_missing_images_may_be_allowed(copy: Copy, sound: dict[str, np.ndarray]) -> None:
    lose(copy, 1, 2)
    with pytest.raises(UserError, match="--allow-missing"):
        make(copy.order(max_bad=0.01))
    store = make(copy.order(max_bad=0.01, allow_missing=True))  # goes on from what the first command left
    assert [(r["case"], r["reason"]) for r in quarantine(store)] == [("c1", "is missing"), ("c2", "is missing")]
    assert pixels(store).keys() == sound.keys() - {"c1", "c2"}


def test_a_hopeless_release_is_given_up_early(copy: Copy) -> None:
    """After the first shard, not after the last."""
    copy.rows += [copy.victim | {"id": f"x{n}", "image": f"x{n}.jpg"} for n in range(1500)]
    copy.save()
    with pytest.raises(UserError, match="504 of 1,508 cases have a bad image or row"):
        make(copy.order(max_bad=0.01))
    store = make(copy.order(max_bad=0.01, allow_missing=True))
    assert len(store) == CASES and len(quarantine(store)) == 1500


def test_what_is_allowed_to_miss_is_no_licence_for_other_damage(copy: Copy) -> None:
    lose(copy, 1, 2)
    (copy.root / "c5.jpg").write_bytes(JPEG[:300])
    with pytest.raises(UserError, match="1 of 8 cases has a bad image or row"):
        make(copy.order(max_bad=0.1, allow_missing=True))


def test_images_that_were_missing_are_read_by_the_second_command(copy: Copy, sound: dict[str, np.ndarray]) -> None:
    data = (copy.root / "c1.jpg").read_bytes()
    lose(copy, 1)
    with pytest.raises(UserError):
        make(copy.order(max_bad=0.01))
    (copy.root / "c1.jpg").write_bytes(data)
    store = make(copy.order(max_bad=0.01))
    assert not quarantine(store) and pixels(store).keys() == sound.keys()


def test_a_corrected_table_is_read_by_the_second_command(copy: Copy, sound: dict[str, np.ndarray]) -> None:
    copy.victim["image"] = "c33.jpg"
    copy.save()
    with pytest.raises(UserError):
        make(copy.order(max_bad=0.01))
    copy.victim["image"] = "c3.jpg"
    copy.save()
    store = make(copy.order(max_bad=0.01))
    assert not quarantine(store) and pixels(store).keys() == sound.keys()


def test_a_corrected_option_is_followed_by_the_second_command(copy: Copy, sound: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match="has no column 'picture'"):
        make(copy.order(columns=replace(COLUMNS, images={"derm": "picture"})))
    assert pixels(make(copy.order())).keys() == sound.keys()


# The same from the command line.

OPTIONS = ["--image", "derm=image", "--label=dx", "--case=id", "--lesion=lesion", "--patient=patient", "--workers=1"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(["data", "prepare", *words], Path.cwd(), timeout=400)


COMMANDS: dict[str, tuple[Callable[[Copy], object], str]] = {
    "too many bad": (lambda copy: lose(copy, 1), "1 of 8 cases has a bad image or row"),
    "no table": (no_table, "has no .csv table"),
    "not UTF-8": (latin_letters, "cases.csv, line 5: is not UTF-8 text"),
    "output in use": (
        lambda copy: (copy.root.parent / "store").mkdir() or (copy.root.parent / "store/a").write_text("mine"),
        "is not empty and holds no case store",
    ),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_that_cannot_be_followed(kind: str, copy: Copy) -> None:
    do, message = COMMANDS[kind]
    do(copy)
    done = command("csv", str(copy.root), "-o", str(copy.root.parent / "store"), *OPTIONS)
    assert done.returncode == 2 and not done.stdout
    assert message in done.stderr and done.stderr.startswith("dermsearch: ") and len(done.stderr.splitlines()) == 1


def test_a_command_tells_of_what_it_left_out(copy: Copy) -> None:
    (copy.root / "c5.jpg").write_bytes(JPEG[:300])
    out = str(copy.root.parent / "store")
    done = command("csv", str(copy.root), "-o", out, "--max-bad", "0.2", *OPTIONS)
    assert done.returncode == 0 and "7 cases" in done.stderr and "1 left out" in done.stderr, done.stderr
