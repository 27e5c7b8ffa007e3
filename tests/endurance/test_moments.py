"""Whatever dies, and whenever: the same command again ends in the undisturbed tables.

The driver, the worker's code, the store and the tables are the real ones; what trains and judges are stand-ins of a
millisecond, so that every moment at which something is written can be tried in turn, and not a sample of them.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from endurance.bench import EPOCHS, IN_PARTS, SEARCHED, STUDY, Bench, stand_in
from endurance.faults import CHANGES, Killed, Shaky, Strike, harmless

from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.storage import files
from dermsearch.storage.files import StoreLost
from dermsearch.storage.stages import StageStore
from dermsearch.upkeep.upkeep import repair, unneeded, verify
from dermsearch.upkeep.used import used_by
from dermsearch.work.cases import open_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[None]:
    """What trains, judges and writes, replaced."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        yield
        open_store.cache_clear()


@pytest.fixture(scope="module")
def bench(stand_ins: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The study, run undisturbed once in the folder `whole`."""
    bench = Bench(tmp_path_factory.mktemp("bench"), STUDY)
    bench.run("whole")
    return bench


@pytest.fixture
def befall(monkeypatch: pytest.MonkeyPatch) -> Callable[[Strike], None]:
    """Let something happen to the file system; until the test is over, or it says otherwise."""
    return lambda strike: monkeypatch.setattr(Shaky, "strike", staticmethod(strike))


def moments(bench: Bench, befall: Any, *kinds: str) -> list[str]:
    """Every operation of those kinds in a run, in order."""
    seen: list[str] = []

    def note(what: str, path: str) -> None:
        if what in kinds:
            seen.append(f"{what} {path}")

    befall(note)
    bench.run(f"counted-{'-'.join(kinds)}")
    befall(harmless)
    return seen


def test_the_undisturbed_run_is_whole(bench: Bench) -> None:
    rows = bench.tables("whole")
    assert (len(rows["trials"]), len(rows["stages"]), len(rows["epochs"]), len(rows["judgements"])) == (1, 2, 4, 3)
    assert len({row["value"] for row in rows["scores"]}) == 3, "a root and two stages, each with a score of its own"
    assert bench.faults("whole") == []


def is_end(moment: str) -> bool:
    """Is a file about to take its place or to go? What is half-written has no name that anybody reads."""
    return moment.startswith(("move", "delete")) or moment.endswith(".arrow")


def killed_everywhere(bench: Bench, befall: Any, step: int = 1) -> Iterator[tuple[int, str]]:
    """Run it, dead at each moment in turn, and again in peace; yields the moment's number and name in between."""
    ends = [m for m in moments(bench, befall, "write", "move", "delete") if is_end(m)]
    for at, moment in list(enumerate(ends))[::step]:
        left = iter(range(at, -1, -1))

        def strike(what: str, path: str, left: Iterator[int] = left) -> None:
            if is_end(f"{what} {path}") and next(left, 0) == 0:
                raise Killed

        befall(strike)
        with pytest.raises(Killed):
            bench.run(f"killed-{at}")
        befall(harmless)
        assert bench.faults(f"killed-{at}") == [], f"half-written after {moment}"
        yield at, moment
        bench.run(f"killed-{at}")
        assert bench.tables(f"killed-{at}") == bench.tables("whole"), moment


def test_killed_at_any_moment_a_run_ends_as_if_nothing_had_been(bench: Bench, befall: Any) -> None:
    every = [moment for _, moment in killed_everywhere(bench, befall)]
    files = {moment.rpartition("/")[2] for moment in every}
    assert {"encoders.safetensors", "history.json", "manifest.json", "scores.arrow"} <= files, "all moments were tried"
    assert len(every) >= 30


def test_killed_at_any_moment_a_search_proposes_what_it_would_have(
    stand_ins: None, befall: Any, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, SEARCHED)
    bench.run("whole")
    assert len(bench.tables("whole")["trials"]) >= 3
    assert len(list(killed_everywhere(bench, befall, 9))) >= 5, "of some moments"


def test_killed_between_and_within_segments_none_that_is_finished_is_trained_twice(
    stand_ins: None, befall: Any, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, IN_PARTS)
    bench.run("whole")
    verdicts = sorted((row["until"], row["verdict"]) for row in bench.tables("whole")["segments"])
    assert verdicts == [(1, "goes on"), (1, "not chosen"), (2, "goes on"), (2, "pruned")]
    EPOCHS.clear()
    finished: dict[str, set[str]] = {}  # by folder: the segments that the kill found finished
    begun: dict[str, int] = {}  # and how many epochs were trained anywhere by then
    for at, _ in killed_everywhere(bench, befall):
        store = tmp_path / f"killed-{at}" / "store"
        finished[str(store)] = {path.parent.name for path in store.glob("segments/*/manifest.json")}
        begun[str(store)] = len(EPOCHS)
    assert {len(found) for found in finished.values()} == {0, 1, 2, 3, 4}
    needed = sum(store.endswith("move-delete/store") for store, *_ in EPOCHS)
    for store, found in finished.items():
        again = [key for where, key, _ in EPOCHS[begun[store] :] if where == store]
        assert not found & set(again)
        assert sum(where == store for where, *_ in EPOCHS) <= needed + 1, "but for the epoch that was under way"
        left = {path.parent.name for path in Path(store).glob("partial/*/state.pt")}
        gone = {item.key for item in unneeded(StageStore(store), used_by([Path(store).parent / "out"]), 1, 4e9)}
        assert left <= gone and len(left) < 2, "at most that of the moment, which nothing goes on from"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ETIMEDOUT], ids=["disk full", "out of reach"])
def test_a_store_lost_at_any_moment_is_one_sentence_and_loses_nothing(number: int, bench: Bench, befall: Any) -> None:
    kinds = ("write",) if number == errno.ENOSPC else ("write", "read")
    every = [m for m in moments(bench, befall, *kinds) if not m.endswith(".arrow")]
    for at, moment in list(enumerate(every))[:: 1 if number == errno.ENOSPC else 5]:
        left = iter(range(at, -1, -1))

        def strike(what: str, path: str, left: Iterator[int] = left) -> None:
            if what in kinds and not path.endswith(".arrow") and next(left, 0) == 0:
                raise OSError(number, "as the test wants it")

        name = f"{number}-{at}"
        befall(strike)
        with pytest.raises(UserError, match=r"compute\.store: .* as the test wants it") as told:
            bench.run(name)
        assert "\n" not in str(told.value)
        befall(harmless)
        assert bench.faults(name) == [], moment
        assert not list((bench.folder / name / "store").rglob("*.part")), "what was half-written would be in the way"
        bench.run(name)
        assert bench.tables(name) == bench.tables("whole"), moment


def test_clocks_that_jump_change_nothing(bench: Bench, befall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + draw.uniform(-1e8, 1e8))
    for at in (12, 24, 30):  # killed again and again, and no file is as old as it seems
        left = iter(range(at, -1, -1))

        def strike(what: str, path: str, left: Iterator[int] = left) -> None:
            if what in CHANGES and next(left, 0) == 0:
                raise Killed

        befall(strike)
        with pytest.raises(Killed):
            bench.run("clock")
        befall(harmless)
        shake_times(bench.folder / "clock", draw)
    bench.run("clock")
    assert bench.tables("clock") == bench.tables("whole")


def shake_times(folder: Path, draw: random.Random) -> None:
    """Years back and forth, file by file."""
    for path in folder.rglob("*"):
        when = time.time() + draw.uniform(-1e8, 1e8)
        os.utime(path, (when, when))


def test_a_flipped_bit_in_any_file_is_found_and_mended(bench: Bench) -> None:
    draw = random.Random(1)
    whole = bench.folder / "whole" / "store"
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) == 1 + 3 * 3 + 3, "the store's mark, root and two stages, a judgement of each"
    for at, file in enumerate(files):
        name = f"flipped-{at}"
        shutil.copytree(bench.folder / "whole", bench.folder / name)
        path = bench.folder / name / "store" / file
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        if file.name != "store.json":  # which says nothing that another could not
            assert bench.faults(name) == [str(file)]
        bench.run(name)
        assert bench.faults(name) == [] and bench.tables(name) == bench.tables("whole"), file


def test_what_is_moved_away_is_made_again(bench: Bench) -> None:
    shutil.copytree(bench.folder / "whole", bench.folder / "moved")
    root = bench.folder / "moved" / "store"
    for path in (next(root.glob("stages/*/encoders.safetensors")), next(root.glob("scores/*.json"))):
        path.write_bytes(b"?" + path.read_bytes()[1:])
    store = StageStore(str(root))
    faults = verify(store)
    assert [i.kind for i in repair(store, faults)] == ["judgement", "stage"] and verify(store) == []
    assert {p.name for p in root.rglob("damaged/**/*") if p.is_file()} >= {"encoders.safetensors", "manifest.json"}
    bench.run("moved")
    assert bench.tables("moved") == bench.tables("whole")


def test_writers_of_one_key_leave_one_whole_stage(tmp_path: Path, befall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second writes between any two files of the first."""
    Shaky.instead(monkeypatch)
    parts = {ENCODERS: Part({}, {"w": torch.arange(6.0)})}
    for at in range(9):
        one, other = (StageStore(str(tmp_path / str(at))) for _ in range(2))
        left = iter(range(at, -1, -1))

        def strike(what: str, path: str, left: Iterator[int] = left, other: StageStore = other) -> None:
            if what in CHANGES and next(left, 1) == 0:
                befall(harmless)
                other.commit("k", parts, [{"epoch": 1, "seconds": 2.0}], {"node": "b"})

        befall(strike)
        one.commit("k", parts, [{"epoch": 1, "seconds": 1.0}], {"node": "a"})
        befall(harmless)
        manifest = one.manifest("k")
        assert manifest is not None and {"a": 1.0, "b": 2.0}[manifest["node"]] == one.history("k")[0]["seconds"]


def test_what_is_read_from_a_broken_disk_counts_as_missing(tmp_path: Path, befall: Any, monkeypatch: Any) -> None:
    Shaky.instead(monkeypatch)
    store = StageStore(str(tmp_path))
    store.commit("k", {ENCODERS: Part({}, {"w": torch.ones(1)})}, [], {})

    def strike(what: str, path: str) -> None:
        if what == "read" and path.endswith("history.json"):
            raise OSError(errno.EIO, "Input/output error")

    befall(strike)
    assert store.manifest("k") is None
    with pytest.raises(StoreLost, match=r"history.json of stage k was damaged or deleted under the running study"):
        store.history("k")


def test_a_remote_store_is_waited_for(tmp_path: Path, befall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Shaky.instead(monkeypatch)
    store = StageStore(str(tmp_path))
    store.local = None
    waited: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waited.append)
    back = len(StageStore.waits)

    def strike(what: str, path: str) -> None:
        if len(waited) < back:
            raise OSError("no answer")

    befall(strike)
    store.write("a", b"1")
    assert store.get("a") == b"1" and waited == list(StageStore.waits)
    waited.clear()
    back += 1
    with pytest.raises(StoreLost, match="cannot be read: no answer; once it can, the same command continues"):
        store.get("a")
    assert sum(waited) == 60
    assert store.progress("k") == [] and len(waited) == len(StageStore.waits), "who only looks does not wait"


def test_a_file_that_is_replaced_is_whole_at_any_moment(tmp_path: Path, befall: Any, monkeypatch: Any) -> None:
    Shaky.instead(monkeypatch)
    folder = files.Folder(tmp_path)
    folder.write("a/b", b"before")
    seen = []

    def strike(what: str, path: str) -> None:
        if what in ("write", "move"):
            seen.append((tmp_path / "a" / "b").read_bytes())

    befall(strike)
    folder.write("a/b", b"after")
    assert seen == [b"before"] * 2 and folder.read("a/b") == b"after"


def test_a_judgement_that_cannot_be_read_back_fails_no_stage(bench: Bench, befall: Any) -> None:
    """Whatever the disk does between a worker's writing and the driver's reading, it is no verdict on the stage."""
    left = [1]

    def strike(what: str, path: str) -> None:
        if what == "read" and "/scores/" in path and os.path.exists(path) and left:
            left.pop()
            raise OSError(errno.EIO, "Input/output error")

    befall(strike)
    with pytest.raises(StoreLost, match=r"scores/\w+\.json was damaged or deleted under the running study; the same"):
        bench.run("unread")
    befall(harmless)
    bench.run("unread")
    assert not left and bench.tables("unread") == bench.tables("whole")
