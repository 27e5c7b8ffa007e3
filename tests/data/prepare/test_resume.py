"""`dermsearch data prepare`, killed and interrupted: the same command continues and makes the same store."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SHARDS, SHARD = 20, 16
SIDE = "1024"  # at this size a shard holds no more cases, so that few small images make many shards
HEADS = "preparing/head-*.arrow"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with images for many shards."""
    root, draw = tmp_path_factory.mktemp("release"), random.Random(0)
    for number in range(SHARDS * SHARD):
        path = root / ("mel" if number % 4 == 0 else "nev") / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.frombytes("RGB", (20, 16), draw.randbytes(20 * 16 * 3)).save(path)
    return root


@pytest.fixture(scope="module")
def whole(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole") / "store"
    said = prepare(release, store)
    assert f"{SHARDS * SHARD} cases" in said and "Continuing" not in said
    return store


@pytest.fixture(scope="module")
def cut(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store whose making was killed, with all its processes, when some shards were there; and a copy of it."""
    store = tmp_path_factory.mktemp("cut") / "store"
    beside = tmp_path_factory.mktemp("tmp")
    with under_way(release, store, {"TMPDIR": str(beside)}) as going:
        pids = list(group(going.pid))
        assert len(pids) > 2, "the command and those that make shards"
        held = {name for pid in pids for name in in_memory(pid)}
        os.killpg(going.pid, signal.SIGKILL)
        going.wait()
    assert not [name for name in held if os.path.exists(name)], "a kill leaves no semaphore"
    assert list(beside.iterdir()) == [], "and no socket"
    assert 0 < len(heads(store)) < SHARDS and not (store / "store.json").exists()
    return store, Path(shutil.copytree(store, store.with_name("copy")))


@pytest.fixture
def killed(cut: tuple[Path, Path]) -> Path:
    """That store as the kill left it."""
    store, copy = cut
    shutil.rmtree(store)
    return Path(shutil.copytree(copy, store))


def command(release: Path, store: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "dermsearch", "data", "prepare", "folder", str(release), "-o", str(store)]
    return [*start, "--side", SIDE, "--encoded", "--split-by", "image", "--workers", "2", *more]


def prepare(release: Path, store: Path, *more: str, code: int = 0) -> str:
    """What a preparation that nothing disturbs says."""
    done = subprocess.run(command(release, store, *more), capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stderr


class under_way:
    """A preparation in a process group of its own, once its first shard is there; the group is killed at the end."""

    def __init__(self, release: Path, store: Path, env: Mapping[str, str] = MappingProxyType({})) -> None:
        self.command, self.store, self.env = command(release, store), store, os.environ | env

    def __enter__(self) -> subprocess.Popen[str]:
        self.going = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )
        wait_until(lambda: bool(heads(self.store)))
        return self.going

    def __exit__(self, *_: object) -> None:
        for pid in group(self.going.pid):
            os.kill(pid, signal.SIGKILL)
        self.going.communicate()


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def heads(store: Path) -> list[Path]:
    return sorted(store.glob(HEADS))


def group(leader: int) -> Iterator[int]:
    """The living processes of a process group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended just now
            continue
        if int(pgrp) == leader and state != "Z":
            yield int(path.parent.name)


def began(pid: int) -> int:
    """When a process was started: numbers begin anew at some time."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def in_memory(pid: int) -> Iterator[str]:
    """The files of /dev/shm that a process has mapped: its semaphores among them."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if (name := line.partition("/dev/shm/")[2]) and not name.endswith("(deleted)"):
            yield f"/dev/shm/{name}"


def content(store: Path) -> dict[str, Any]:
    """The manifest and the bytes of every other file; all of the store, or the test fails."""
    names = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    manifest = json.loads((store / "store.json").read_text())
    assert names == {*manifest["files"], "store.json", "README.md"} and not (store / "preparing").exists()
    return {"manifest": manifest, **{name: (store / name).read_bytes() for name in manifest["files"]}}


def test_killed_the_same_command_continues_to_the_same_store(release: Path, whole: Path, killed: Path) -> None:
    kept = {name: (killed / name).stat().st_mtime_ns for name in done(killed)}
    stray = killed / "preparing" / "0a1b2c.part"
    stray.write_bytes(b"what a kill left of a file")
    said = prepare(release, killed)
    assert f"Continuing: {len(kept)} of {SHARDS} shards are there." in said
    assert {name: (killed / name).stat().st_mtime_ns for name in kept} == kept, "they were not made again"
    assert content(killed) == content(whole)


def done(store: Path) -> list[str]:
    """The images of the shards that have a head."""
    return [path.name.replace("head", "images") for path in heads(store)]


def test_killed_while_finishing_it_finishes(release: Path, whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    die = "import os, dermsearch.data.store.card as card; card.card = lambda *_: os.kill(os.getpid(), 9); "
    arguments = command(release, store)[3:]
    ended = subprocess.run([sys.executable, "-c", f"{die}from dermsearch.cli.main import app; app({arguments})"])
    assert ended.returncode == -signal.SIGKILL
    assert len(heads(store)) == SHARDS and not (store / "store.json").exists()
    assert f"Continuing: {SHARDS} of {SHARDS} shards are there." in prepare(release, store)
    assert content(store) == content(whole)
    before = (store / "store.json").stat().st_mtime_ns
    assert "is there already" in prepare(release, store), "what is finished is told"
    assert (store / "store.json").stat().st_mtime_ns == before


def test_killed_another_command_starts_anew_and_says_so(release: Path, killed: Path) -> None:
    said = prepare(release, killed, "--fit", "crop")
    assert "with other settings or another release left unfinished is made anew" in said
    assert content(killed)["manifest"]["settings"]["fit"] == "crop"


def messages(said: str) -> list[str]:
    """What was told beside how far it was, which a slow machine tells now and then."""
    return [line for line in said.splitlines() if " cases/s, " not in line]


def test_interrupted_it_says_what_to_do_and_leaves_no_process(release: Path, whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with under_way(release, store) as going:
        os.killpg(going.pid, signal.SIGINT)  # as a terminal does
        _, said = going.communicate(timeout=300)
        assert going.returncode == 130
        assert messages(said) == ["Interrupted. The same command continues from here."]
        assert not list(group(going.pid))
    assert "Continuing: " in prepare(release, store)
    assert content(store) == content(whole)


def test_a_killed_worker_is_one_message_and_the_same_command_continues(
    release: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with under_way(release, store) as going:
        os.kill(max(group(going.pid), key=began), signal.SIGKILL)
        _, said = going.communicate(timeout=300)
        assert going.returncode == 2
        assert messages(said) == [
            "dermsearch: a process was killed, perhaps for want of memory; the same command continues"
        ]
        assert not list(group(going.pid))
    assert "Continuing: " in prepare(release, store)
    assert content(store) == content(whole)


def test_workers_end_when_the_command_is_killed_alone(release: Path, tmp_path: Path) -> None:
    with under_way(release, tmp_path / "store") as going:
        going.kill()
        wait_until(lambda: not list(group(going.pid)))


def test_a_store_that_cannot_be_written_is_one_message(release: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = prepare(release, tmp_path / "file" / "store", code=2)
    assert said.startswith("dermsearch: ") and "cannot be written to" in said and len(said.splitlines()) == 1
