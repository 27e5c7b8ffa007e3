"""Shards made by Ray Data: the store of one process, results as they come, mistakes in a sentence."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from PIL import Image

from dermsearch.data.decode import Form
from dermsearch.data.engines import on_cores
from dermsearch.data.prepare import Order, prepare
from dermsearch.data.progress import Silent
from dermsearch.data.splits import Split
from dermsearch.errors import UserError
from dermsearch.search.shards import on_cluster

FORM = Form(1000)  # at this size a shard holds 16 cases


class Steps(Silent):
    """Notes when how many cases were made."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []

    def advance(self, cases: int) -> None:
        self.steps.append((cases, time.monotonic()))


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


def order(release: Path, store: Path) -> Order:
    return Order("folder", str(release), str(store), FORM, encoded=True, split=Split("image"))


def test_the_command_starts_a_ray_of_its_own_and_is_quiet(release: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dermsearch", "data", "prepare", "folder", str(release)]
    command += ["--side", "32", "--split-by", "image"]
    said = []
    for name, more in {"one": ["--workers", "1"], "ray": ["--address", "local"]}.items():
        done = subprocess.run([*command, "-o", name, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and not done.stdout, done.stderr
        said += [line for line in done.stderr.splitlines() if " cases/s, " not in line]  # slow machines tell how far
    assert [line.split(" in ")[0] for line in said] == ["one: 128 cases", "ray: 128 cases"], said
    assert (tmp_path / "one" / "store.json").read_bytes() == (tmp_path / "ray" / "store.json").read_bytes()


def test_the_store_is_that_of_one_process_and_shards_are_told_as_they_come(
    cluster: str, release: Path, tmp_path: Path
) -> None:
    one = prepare(order(release, tmp_path / "one"), on_cores(1), Silent())
    told = Steps()
    assert prepare(order(release, tmp_path / "ray"), on_cluster(cluster), told) == one
    assert [cases for cases, _ in told.steps] == [16] * 8
    assert told.steps[-1][1] - told.steps[0][1] > 0.3, "not all at the end"
    assert not ray.is_initialized()


def test_what_an_interrupted_command_left_is_continued(cluster: str, release: Path, tmp_path: Path) -> None:
    class Stops(Silent):
        def advance(self, cases: int) -> None:
            raise KeyboardInterrupt

    class Told(Silent):
        def say(self, text: str) -> None:
            self.text = text

    with pytest.raises(KeyboardInterrupt):
        prepare(order(release, tmp_path / "store"), on_cluster(cluster), Stops())
    assert not ray.is_initialized()
    told = Told()
    prepare(order(release, tmp_path / "store"), on_cluster(cluster), told)
    assert told.text.startswith("Continuing: ") and not told.text.startswith("Continuing: 0 ")


def test_a_store_that_a_node_cannot_write_is_a_sentence(cluster: str, release: Path, tmp_path: Path) -> None:
    class Spoils(Silent):
        def start(self, cases: int, done: int) -> None:
            (tmp_path / "store" / "images-00003.arrow").mkdir()

    with pytest.raises(UserError, match=r"^'.*store' cannot be written to: [^\n]+$"):
        prepare(order(release, tmp_path / "store"), on_cluster(cluster), Spoils())
    assert not ray.is_initialized()


def test_an_address_where_nothing_answers_is_a_message(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--address: no Ray cluster answers at '127\.0\.0\.1:1'"):
        prepare(order(release, tmp_path / "store"), on_cluster("127.0.0.1:1"), Silent())
