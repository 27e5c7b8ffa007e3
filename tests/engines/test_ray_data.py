"""Shards made by Ray Data: the store of one process, results as they come, mistakes in a sentence."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.store.splits import Split
from dermsearch.engines.ray_data import guarded
from dermsearch.errors import EngineLost

pytestmark = pytest.mark.slow

SIDE = 1000  # at this size a shard holds 16 cases
# In a process of its own: Ray ends a process that waits for a cluster which is gone.
DRIVER = """
import json, sys, time
from pathlib import Path
import ray
from dermsearch.data.prepare.progress import Watcher
from dermsearch.engines import ray_data
from test_ray_data import order, prepare

class Told(Watcher):
    def say(self, text):
        print("said", text)

    def advance(self, cases):
        print(cases)
        told.touch()
        if stop:
            raise KeyboardInterrupt

def patient(row, make=ray_data._make):
    "The last shard is not made before another was told of."
    ends = time.monotonic() + 200
    while json.loads(row["job"])["number"] == 7 and not told.exists():
        assert time.monotonic() < ends, "nothing is told before all are made"
        time.sleep(0.05)
    return make(row)

release, store, address, stop = sys.argv[1:]
told, ray_data._make = Path(store + ".told"), patient
try:
    prepare(order(release, store), ray_data.on_cluster(address), Told())
except KeyboardInterrupt:
    print("interrupted")
assert not ray.is_initialized()
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with images for eight shards."""
    root, draw = tmp_path_factory.mktemp("release"), random.Random(0)
    for number in range(8 * 16):
        path = root / ("mel" if number % 4 == 0 else "nev") / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.frombytes("RGB", (20, 16), draw.randbytes(20 * 16 * 3)).save(path)
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray cluster of two CPUs on this machine."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield started.address
    started.shutdown()


def order(release: str | Path, store: str | Path) -> Order:
    return Order("folder", str(release), str(store), Form(SIDE), encoded=True, split=Split("image"))


def drive(cluster: str, release: Path, store: Path, stop: bool = False) -> list[list[str]]:
    """The words of every line that a process on the cluster says while it makes a store."""
    command = [sys.executable, "-c", DRIVER, str(release), str(store), cluster, "stop" if stop else ""]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def command(release: Path, store: Path, address: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it."""
    words = ["folder", str(release), "-o", str(store), "--side", str(SIDE), "--split-by", "image", "--address", address]
    words = [sys.executable, "-m", "dermsearch", "data", "prepare", *words]
    return subprocess.run(words, capture_output=True, text=True, timeout=600)


def test_the_command_starts_a_ray_of_its_own_and_is_quiet(release: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dermsearch", "data", "prepare", "folder", str(release)]
    command += ["--side", "32", "--split-by", "image"]
    said = []
    for name, more in {"one": ["--workers", "1"], "ray": ["--address", "local"]}.items():
        done = subprocess.run([*command, "-o", name, *more], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 and not done.stdout, done.stderr
        said += [line for line in done.stderr.splitlines() if " cases/s, " not in line]  # slow machines tell how far
    assert [line.split(" in ")[0] for line in said] == ["one: 128 cases", "ray: 128 cases"], said
    assert (tmp_path / "one" / "store.json").read_bytes() == (tmp_path / "ray" / "store.json").read_bytes()


def test_the_store_is_that_of_one_process_and_shards_are_told_as_they_come(
    cluster: str, release: Path, tmp_path: Path
) -> None:
    prepare(order(release, tmp_path / "one"), on_cores(1), Watcher())
    told = drive(cluster, release, tmp_path / "ray")
    assert told == [["16"]] * 8
    assert (tmp_path / "one" / "store.json").read_bytes() == (tmp_path / "ray" / "store.json").read_bytes()


@pytest.mark.long
def test_what_an_interrupted_command_left_is_continued(cluster: str, release: Path, tmp_path: Path) -> None:
    stopped = drive(cluster, release, tmp_path / "store", stop=True)
    assert [words[0] for words in stopped] == ["16", "interrupted"]
    first, *rest = drive(cluster, release, tmp_path / "store")
    assert first[:2] == ["said", "Continuing:"] and first[3:] == ["of", "8", "shards", "are", "there."]
    there = int(first[2])
    assert there > 0 and rest == [["16"]] * (8 - there)


@pytest.mark.long
def test_a_store_that_a_node_cannot_write_is_a_sentence(cluster: str, release: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "images-00003.arrow").mkdir(parents=True)
    done = command(release, tmp_path / "store", cluster)
    *_, last = done.stderr.splitlines()
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert last.startswith(f"dermsearch: '{tmp_path / 'store'}' cannot be written to: "), done.stderr


def test_an_address_where_nothing_answers_is_a_message(release: Path, tmp_path: Path) -> None:
    done = command(release, tmp_path / "store", "127.0.0.1:1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--address: no Ray cluster answers at '127.0.0.1:1'" in done.stderr


def test_a_ray_that_is_lost_ends_it_with_a_sentence_whatever_ray_waits_for_or_says() -> None:
    """Ray itself goes on waiting for a raylet that was killed, then ends the process with its logs."""
    first, waits, lost = {"number": 1}, threading.Event(), list[str]()

    def rows(end: Exception | None) -> Iterator[dict[str, int]]:
        yield first
        if end is not None:
            raise end
        waits.wait(100)

    def check() -> None:
        if lost:
            raise EngineLost(lost[0])

    for end in (None, RuntimeError("node died"), ValueError("a bug")):
        lost.clear()
        coming = guarded(lambda end=end: rows(end), check)
        assert next(coming) == first
        lost += ["Ray is gone"] * (not isinstance(end, ValueError))
        with pytest.raises(EngineLost if lost else ValueError, match="Ray is gone" if lost else "a bug"):
            next(coming)
    waits.set()
    assert list(guarded(lambda: [first, first], lambda: None)) == [first, first]
