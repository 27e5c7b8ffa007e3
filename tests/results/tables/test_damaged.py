"""Tables that are cut, empty, swapped or flipped: one sentence that names the file and what makes it again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dermsearch.errors import UserError
from dermsearch.results import Results, load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import explain
from dermsearch.results.tables.schema import read, read_study, write

TRIES = 250


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut, emptied, overwritten, or with some bits the other way round."""
    kind = rng.choice(("cut", "empty", "flip", "flip", "flip", "overwrite"))
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    if kind == "empty":
        return b""
    changed, at = bytearray(data), rng.randrange(len(data))
    if kind == "overwrite":
        changed[at : at + 64] = rng.randbytes(64)
    else:
        for _ in range(rng.choice((1, 1, 8))):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_damage_is_told_or_without_effect(make_study: Callable[..., Results], tmp_path: Path) -> None:
    folder = make_study().folder
    rows, told = leaderboard(load(folder)), explain(gather(str(folder))).effects
    files = [*sorted((folder / "tables").glob("*.arrow")), folder / "study.yaml"]
    rng, refused = random.Random(0), 0
    for _ in range(TRIES):
        file = rng.choice(files)
        sound = file.read_bytes()
        file.write_bytes(damage(sound, rng))
        try:
            found = leaderboard(load(folder))
            if file.suffix == ".arrow":
                assert found == rows, f"{file.name}: other numbers"
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
            if file.suffix == ".arrow":
                opened = file.stem in ("tests", "test_predictions")
                again = f"test {folder}` opens" if opened else f"--out {folder}` makes it again"
                assert str(error).startswith(f"{file}: ") and again in str(error)
        finally:
            file.write_bytes(sound)
    assert refused > TRIES / 2
    assert explain(gather(str(folder))).effects == told


def swapped(folder: Path) -> None:
    shutil.copy(folder / "tables" / "scores.arrow", folder / "tables" / "stages.arrow")


def taken_for_tests(folder: Path) -> None:
    shutil.copy(folder / "tables" / "scores.arrow", folder / "tables" / "tests.arrow")


def foreign(folder: Path) -> None:
    write(pa.table({"key": [[1, 2]], "curriculum": [{"a": 1}]}), folder / "tables" / "stages.arrow")


def deep(folder: Path) -> None:
    (folder / "study.yaml").write_text("a: " + "[" * 10_000 + "]" * 10_000)


def a_list_as_name(folder: Path) -> None:
    (folder / "study.yaml").write_text("name: [a, b]")


def a_folder(folder: Path) -> None:
    (folder / "tables" / "scores.arrow").unlink()
    (folder / "tables" / "scores.arrow").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (foreign, "stages.arrow: is no table of stages"),
        (swapped, "stages.arrow: is no table of stages (it has "),
        (taken_for_tests, "tests.arrow: is no table of tests (it has no opening)"),
        (a_folder, "it has no tables/scores.arrow"),
        (deep, "study.yaml: is not a study (nested too deep)"),
        (a_list_as_name, "study.yaml: is not a study (name is list)"),
    ],
)
def test_what_is_whole_and_no_study_is_told(
    spoil: Callable[[Path], None], said: str, make_study: Callable[..., Results]
) -> None:
    folder = make_study().folder
    spoil(folder)
    with pytest.raises(UserError) as told:
        load(folder)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_table_of_an_earlier_version_is_read(make_study: Callable[..., Results]) -> None:
    results = make_study()
    path = results.folder / "tables" / "stages.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, results.stages.schema) as writer:
        writer.write_table(results.stages)
    assert read(path).equals(results.stages)
    assert read_study(results.folder)["objective"]["protocol"] == "knn"


@pytest.mark.parametrize("name, said", [("tests", "dermsearch test"), ("scores", "dermsearch run")])
def test_the_command_that_is_named_makes_the_table_again(
    name: str, said: str, make_study: Callable[..., Results]
) -> None:
    """`run` writes no table of what the test split was opened for."""
    folder = make_study().folder
    for spoilt in (b"ARROW1", pa.table({"x": [1]})):
        file = folder / "tables" / f"{name}.arrow"
        file.write_bytes(spoilt) if isinstance(spoilt, bytes) else write(spoilt, file)
        with pytest.raises(UserError, match=f"`{said} "):
            load(folder)
