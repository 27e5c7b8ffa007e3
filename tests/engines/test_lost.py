"""The Ray of a run dies under it: within half a minute one sentence, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from e2e.tiny import TINY
from pace import slowness

from dermsearch.engines import ray_cluster
from dermsearch.engines.ray_cluster import Cluster
from dermsearch.engines.ray_local import BEGINS, MARK, OWNER, SILENT, Place, clear
from dermsearch.engines.ray_watch import Watch
from dermsearch.errors import UserError
from dermsearch.study.config import Compute

SECONDS = 30
STUDY = [*TINY, "curriculum.tasks={rotation: {}}", "curriculum.length=[1,1]", "train.epochs=100000"]


@pytest.fixture
def going(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run on a Ray of its own that trains for ever, from its first epoch on."""
    tag = uuid.uuid4().hex
    place = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # of a short name, as sockets must have
    (tmp_path / "r").symlink_to(place)
    environment = {**os.environ, "RUN_TAG": tag, "RAY_TMPDIR": str(place)}
    environment.pop("RAY_worker_niceness", None)  # of tests; a run has to see to it by itself
    command = [sys.executable, "-m", "dermsearch", "run", "curriculum_three.yaml", *STUDY]
    with (tmp_path / "log.txt").open("w") as log:
        run = subprocess.Popen(
            command, stdout=log, stderr=log, text=True, cwd=tmp_path, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )  # fmt: skip
    run.tag = tag  # type: ignore[attr-defined]
    until = time.monotonic() + 400
    while not list((tmp_path / "results").glob("store/partial/*/progress.json")):
        assert time.monotonic() < until and run.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.1)
    yield run
    for pid in tagged(tag):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.wait()
    shutil.rmtree(place)


def tagged(tag: str) -> list[int]:
    """The processes of a run that still are."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and f"RUN_TAG={tag}".encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def buried(tag: str) -> bool:
    """Are they all gone? A busy machine takes its time to bury what was killed."""
    until = time.monotonic() + 60
    while tagged(tag) and time.monotonic() < until:
        time.sleep(0.1)
    return not tagged(tag)


def named(tag: str, name: str) -> int:
    (pid,) = (pid for pid in tagged(tag) if Path(f"/proc/{pid}/comm").read_text().strip() == name)
    return pid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "gone"), [("raylet", "its raylet"), pytest.param("gcs_server", "its head", marks=pytest.mark.long)]
)
def test_a_killed_ray_ends_the_run_with_a_sentence(
    victim: str, gone: str, going: subprocess.Popen[str], tmp_path: Path
) -> None:
    tag = going.tag  # type: ignore[attr-defined]
    began = time.monotonic()
    os.kill(named(tag, victim), signal.SIGKILL)
    going.wait(timeout=300)
    took, said = time.monotonic() - began, (tmp_path / "log.txt").read_text()
    assert took < SECONDS * slowness(), took
    assert going.returncode == 1, said
    assert (
        said.splitlines()[-1]
        == f"dermsearch: Ray on this machine has stopped ({gone} is gone); the same command continues"
    )
    assert "Traceback" not in said and "[C]" not in said, said
    assert buried(tag) and list((tmp_path / "r").iterdir()) == []
    assert not list((tmp_path / "results" / "store" / "claims").rglob("*.json")), "no lease is left"


@pytest.mark.slow
def test_a_ray_of_ones_own_is_private_and_ctrl_c_ends_it_at_once(going: subprocess.Popen[str], tmp_path: Path) -> None:
    tag = going.tag  # type: ignore[attr-defined]
    is_private(tag, tmp_path / "r")
    is_as_urgent(tag, going.pid)
    began = time.monotonic()
    going.send_signal(signal.SIGINT)
    try:
        going.wait(timeout=200)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still there after minutes: {(tmp_path / 'log.txt').read_text()}")
    assert going.returncode == 130 and time.monotonic() - began < SECONDS * slowness()
    said = (tmp_path / "log.txt").read_text()
    assert said.endswith("Interrupted. The same command continues from here.\n") and "Traceback" not in said
    assert buried(tag) and list((tmp_path / "r").iterdir()) == []


def is_private(tag: str, place: Path) -> None:
    """Its folder, its token, and the doors that it opens."""
    (folder,) = place.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    environment = Path(f"/proc/{named(tag, 'raylet')}/environ").read_bytes().split(b"\0")
    assert b"RAY_AUTH_MODE=token" in environment and any(e.startswith(b"RAY_AUTH_TOKEN=") for e in environment)
    assert open_to_all(tagged(tag)) == set()


def is_as_urgent(tag: str, run: int) -> None:
    """Ray's workers are nice by 15: beside other work a run looked as if it hung, at 2 % of a processor."""
    trains = [pid for pid in tagged(tag) if Path(f"/proc/{pid}/comm").read_text().startswith("ray::Implicit")]
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in trains} == {os.getpriority(os.PRIO_PROCESS, run)}


def open_to_all(pids: list[int]) -> set[str]:
    """What these processes listen on that is not the loopback interface."""
    inodes = {}
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes[os.readlink(fd)] = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            local, listens, owner = words[1], words[3] == "0A", inodes.get(f"socket:[{words[9]}]")
            inside = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
            if listens and owner and local.split(":")[0] not in inside:
                found.add(f"{owner} {local}")
    return found


def test_a_door_that_is_shut_is_lost_after_a_while_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        door = ("it", ("127.0.0.1", server.getsockname()[1]))
        watch = Watch([door], patience=0.5)
        time.sleep(1.5)
        assert watch.lost == ""
    until = time.monotonic() + 60
    while not watch.lost and time.monotonic() < until:
        time.sleep(0.05)
    assert watch.lost == "it"
    watch.end()


def agent(**streams: Any) -> subprocess.Popen[bytes]:
    """A process called as Ray's agents are, whose title stands where its environment was."""
    found = subprocess.Popen(["ray::DashboardAgent", "600"], executable="/bin/sleep", env={}, **streams)
    title, until = Path(f"/proc/{found.pid}/cmdline"), time.monotonic() + 60
    while not title.read_bytes().startswith(b"ray::") and time.monotonic() < until:
        time.sleep(0.01)  # a program that has begun has no title yet for a moment
    return found


def test_what_a_dead_run_left_is_cleared_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv(MARK, "")
    place = Place()
    dead, nobody, link = (tmp_path / f"{BEGINS}{name}" for name in ("dead", "nobody", "link"))
    for folder in (dead, nobody):
        (folder / "session").mkdir(parents=True)
    owner = json.loads((place.folder / OWNER).read_text())
    (dead / OWNER).write_text(json.dumps({**owner, "born": "1"}))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / OWNER).write_text(json.dumps({**owner, "born": "1"}))
    link.symlink_to(tmp_path / "precious")
    with (dead / "agent.out").open("w") as log, (nobody / "agent.out").open("w") as other:
        left, stays = (agent(stdout=stream) for stream in (log, other))
    try:
        clear(tmp_path)
        assert left.wait(timeout=60) == -signal.SIGKILL and stays.poll() is None
    finally:
        stays.kill()
        stays.wait()
    assert not dead.exists() and nobody.exists() and (tmp_path / "precious").exists() and place.folder.exists()
    place.leave()
    assert not place.folder.exists()


@pytest.mark.parametrize(
    "owner",
    [None, "", "[1]", pytest.param("[" * 100_000, id="deep"), '{"home": "another", "pid": 1, "born": "1"}'],
)
def test_who_cannot_be_looked_up_is_dead_when_silent_for_a_day_and_nobody_is_there(
    owner: str | None, tmp_path: Path
) -> None:
    """A kill before the owner was written, half of it, a container that is gone, a machine that was started anew."""
    silent, signs, works = (tmp_path / f"{BEGINS}{name}" for name in ("silent", "signs", "works"))
    for folder in (silent, signs, works):
        folder.mkdir()
        if owner is not None:
            (folder / OWNER).write_text(owner)
        for path in (*folder.iterdir(), folder):
            os.utime(path, (0, time.time() - SILENT - 60))
    os.utime(signs / OWNER if owner is not None else signs)
    with (works / "agent.out").open("w") as log:
        os.utime(works, (0, 0))
        stays = agent(stdout=log)
    try:
        clear(tmp_path)
        assert sorted(tmp_path.iterdir()) == [signs, works] and stays.poll() is None
    finally:
        stays.kill()
        stays.wait()


def test_a_run_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv(MARK, "")
    place = Place()
    watch = Watch([], patience=1, sign=place.sign)
    try:
        os.utime(place.folder / OWNER, (0, 0))
        until = time.monotonic() + 60
        while (place.folder / OWNER).stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert (place.folder / OWNER).stat().st_mtime > 1
    finally:
        watch.end()
        place.leave()


def test_no_place_for_rays_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(UserError, match=r"^Ray has no place for its files: .*/proc/nowhere/.*; name another as RAY_T"):
        Place()


@pytest.mark.parametrize("when", ["while", "behind"])
def test_a_notice_while_ray_starts_leaves_nothing(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a program of Python's too, which calls a run and has no handler of its own."""
    places = list[Place]()

    def starts(compute: Compute, address: None, place: Place) -> None:
        places.append(place)
        assert place.folder.exists()
        if when == "behind":
            signal.signal(signal.SIGTERM, lambda *of: sys.exit(1))  # as Ray does
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def look(*of: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray_cluster, "connect", starts)
    monkeypatch.setattr(ray_cluster, "doors", look)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), Cluster(Compute(), None) as cluster:
            cluster.open()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [place.folder.exists() for place in places] == [False]


def test_a_process_that_wrote_its_title_over_its_environment_is_ended_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv(MARK, "")
    place = Place()
    with (place.folder / "agent.out").open("w") as log:
        left = agent(stdout=log)
    other = agent()
    try:
        place.leave()
        assert left.wait(timeout=60) == -signal.SIGKILL and other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.slow
@pytest.mark.long
def test_a_home_that_is_not_there_stops_no_run_and_leaves_no_process(tmp_path: Path) -> None:
    tag = uuid.uuid4().hex
    environment = {**os.environ, "RUN_TAG": tag, "HOME": "/proc/nowhere", "LC_ALL": "C"}
    command = [sys.executable, "-m", "dermsearch", "run", "curriculum_three.yaml", *STUDY, "train.epochs=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert buried(tag)
