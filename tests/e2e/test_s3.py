"""Releases, case stores and stage stores on S3: prepared to, opened from and trained from, on a real server."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import warm
from PIL import Image
from s3 import Server, serving

from dermsearch.data.decode.image import Form
from dermsearch.data.open import fetch, open_cases
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.store.layout import FORMAT, of_itself
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.storage.files import Folder
from dermsearch.study.data import Data

STUDY = """\
name: remote
data: {source: store, path: "URI", size: 32}
encoder: {name: test_resnet}
curriculum: {tasks: {moco_v2: {queue: 32}}, length: [1, 1]}
train: {epochs: 1, batch: 16}
compute: {engine: inline, store: "STORE"}
"""
BY_IMAGE = ("data", "prepare", "folder", "--split-by", "image")  # what a folder's images can be split by


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3") / "log.txt") as server:
        yield server


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders, sixty images of noise."""
    root, draw = tmp_path_factory.mktemp("release"), random.Random(0)
    for number in range(60):
        path = root / ("mel" if number % 3 == 0 else "nev") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.frombytes("RGB", (40, 36), draw.randbytes(40 * 36 * 3)).save(path)
    return root


@pytest.fixture(scope="module")
def there(s3: Server, release: Path) -> str:
    """The release and a store of it on the server; the store's URI."""
    remote = Folder(s3.uri("bucket/release"))
    for path in release.glob("*/*.png"):
        remote.write(str(path.relative_to(release)), path.read_bytes())
    make(str(release), s3.uri("bucket/stores/skin"))
    return s3.uri("bucket/stores/skin")


def make(release: str, store: str, side: int = 32) -> dict:
    return prepare(Order("folder", release, store, Form(side), split=Split("image")), on_cores(1), Watcher())


def cases(uri: str) -> Data:
    return Data(source="store", path=uri, size=32)


def command(home: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """`dermsearch ...` with a home folder of the test's: (stdout, stderr)."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(home))
        done = warm.run(list(arguments), home, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_folder_on_s3_is_listed_read_written_and_removed(s3: Server) -> None:
    folder = Folder(s3.uri("bucket/deep/down/"))
    assert folder.kind() == "none" and folder.names() == [] and folder.local is None
    folder.write("a/b c.txt", b"\xef\xbb\xbfone")
    folder.write("empty", b"")
    folder.write("a/b c.txt", b"two")
    assert folder.names() == ["a/b c.txt", "empty"] and folder.names("a") == ["a/b c.txt"]
    assert [folder.kind(name) for name in ("", "a", "a/b c.txt", "a/b")] == ["folder", "folder", "file", "none"]
    assert folder.text("a/b c.txt") == "two" and folder.read("empty") == b""
    everything = folder.fs.get_file_info(pafs.FileSelector("bucket/deep", recursive=True))
    assert {info.path for info in everything} == {
        f"bucket/deep/down{name}" for name in ("", "/a", "/a/b c.txt", "/empty")
    }, "nothing was renamed there"
    folder.remove("a")
    folder.remove("a")
    assert folder.names() == ["empty"] and folder.kind("a") == "none"
    with pytest.raises(UserError, match=r"has no a/b c\.txt"):
        folder.text("a/b c.txt")


def test_release_and_store_lie_here_or_there_the_store_is_the_same(
    s3: Server, there: str, release: Path, tmp_path: Path
) -> None:
    here = make(str(release), str(tmp_path / "here"))
    for store in (str(tmp_path / "fetched"), s3.uri("bucket/stores/copy")):
        made = make(s3.uri("bucket/release"), store)
        assert made == here
        assert Folder(store).names() == Folder(str(tmp_path / "here")).names() == Folder(there).names()
        for name in made["files"]:
            assert Folder(store).read(name) == (tmp_path / "here" / name).read_bytes()


def test_what_was_killed_on_s3_is_continued_there(s3: Server, release: Path) -> None:
    class Told(Watcher):
        def say(self, text: str) -> None:
            self.text = text

    def dies(jobs: list) -> Iterator[dict]:
        yield from on_cores(1)(jobs[:1])
        raise KeyboardInterrupt

    order = Order("folder", str(release), s3.uri("bucket/stores/cut"), Form(1000), encoded=True, split=Split("image"))
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        prepare(order, dies, told)
    prepare(order, on_cores(1), told)
    assert told.text == "Continuing: 1 of 4 shards are there."
    names = Folder(order.store).names()
    assert "store.json" in names and not [name for name in names if "preparing" in name]


def test_a_store_is_copied_once_and_opened_offline(release: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt") as server:
        uri = server.uri("bucket/skin")
        made = make(str(release), uri)
        opened = open_cases(cases(uri), tmp_path / "cache")
        assert opened.fingerprint == made["fingerprint"] and len(opened) == 60
        assert opened.pictures("derm", opened.split("train"))[0].any()
        before = len(reads(tmp_path / "log.txt"))
        again = open_cases(cases(uri), tmp_path / "cache")
        assert again.folder == opened.folder
        assert set(reads(tmp_path / "log.txt")[before:]) == {"store.json"}
        server.stop()
        assert open_cases(cases(uri), tmp_path / "cache").folder == opened.folder


def reads(log: Path) -> list[str]:
    """The files that a server was asked for."""
    return re.findall(r"GET /bucket/\w+/(\S+) HTTP", log.read_text())


def test_a_store_that_changed_there_is_copied_anew_beside_the_old_copy(
    s3: Server, release: Path, tmp_path: Path
) -> None:
    uri = s3.uri("bucket/stores/changing")
    make(str(release), uri)
    old = open_cases(cases(uri), tmp_path)
    Folder(uri).remove("")
    made = make(str(release), uri, side=36)
    new = open_cases(cases(uri), tmp_path)
    assert new.fingerprint == made["fingerprint"] != old.fingerprint and new.side == 36
    assert old.pictures("derm", old.split("val"))[0].shape[1] == 32, "who reads the old copy still can"


def test_a_damaged_store_is_told_and_not_kept(s3: Server, there: str, tmp_path: Path) -> None:
    damaged = s3.uri("bucket/stores/damaged")
    for name in Folder(there).names():
        Folder(damaged).write(name, Folder(there).read(name))
    Folder(damaged).write("images-00000.arrow", Folder(there).read("images-00000.arrow")[:-64])
    with pytest.raises(UserError, match=r"data\.path: s3://bucket/stores/damaged.*: images-00000.arrow is damaged"):
        open_cases(cases(damaged), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def sealed(**told: object) -> bytes:
    """A manifest whose checksum is right."""
    about = {"format": FORMAT, **told}
    return json.dumps({**about, "checksum": of_itself(about)}).encode()


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"{", "is not a case store"),
        (sealed(format=1, files={}, fingerprint="0"), "was made by another version"),
        (b'{"format": %d, "files": {}, "fingerprint": "0"}' % FORMAT, "was changed by hand"),
        (sealed(files={"../../x": "0"}, fingerprint="0"), "store.json is damaged; make"),
        (sealed(files={}, fingerprint="../x"), "store.json is damaged; make"),
        (sealed(), "store.json is damaged; make"),
    ],
)
def test_a_manifest_that_is_none_is_told(s3: Server, tmp_path: Path, manifest: bytes, said: str) -> None:
    uri = s3.uri("bucket/stores/odd")
    Folder(uri).write("store.json", manifest)
    with pytest.raises(UserError, match=said):
        fetch(uri, tmp_path)


def test_a_place_that_is_none_is_one_message(s3: Server, release: Path, tmp_path: Path) -> None:
    for uri in (s3.uri("no-such-bucket/x"), s3.uri("bucket/no/such/store"), "s3:///x", "s3://bucket/x?nonsense=1"):
        with pytest.raises(UserError, match=r"^data\.path: .*(no case store at|cannot be opened)"):
            open_cases(cases(uri), tmp_path)
    nowhere = s3.uri("no-such-bucket/x")
    _, said = command(tmp_path, *BY_IMAGE, str(release), "-o", nowhere, code=2)
    assert re.search("no-such-bucket/x.* cannot be written to: Bucket 'no-such-bucket' not found", said), said
    assert len(said.splitlines()) == 1


def test_a_stage_is_trained_from_a_store_on_s3(s3: Server, there: str, tmp_path: Path) -> None:
    uri = s3.uri("bucket/stores/by-command")
    command(tmp_path, *BY_IMAGE, s3.uri("bucket/release"), "-o", uri, "--side", "32")
    assert json.loads(Folder(uri).read("store.json")) == json.loads(Folder(there).read("store.json"))
    card, _ = command(tmp_path, "data", "describe", uri)
    assert "60" in card and "mel" in card
    for name, store in (("here", str(tmp_path / "stages")), ("there", s3.uri("bucket/stages"))):
        (tmp_path / "study.yaml").write_text(STUDY.replace("URI", uri).replace("STORE", store))
        summary, _ = command(tmp_path, "run", "study.yaml", "--json", "--out", name)
        counts = json.loads(summary)["stages"]
        assert counts == {"proposed": 1, "trained": 1, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
        assert set(load(tmp_path / name).scores["protocol"].to_pylist()) == {"knn", "linear"}
    assert load(tmp_path / "here").scores["value"] == load(tmp_path / "there").scores["value"]
    names = Folder(s3.uri("bucket/stages")).names()
    assert not [name for name in names if name.startswith(("partial/", "tune/")) or name.endswith(".part")]
