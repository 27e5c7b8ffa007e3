"""A release of grey pictures: one channel of each is kept, and a picture in colours among them is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data.inspect.test_check import found
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.domain import CHEST
from dermsearch.data.inspect.check import OK
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import Columns
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import FORMAT, GREY, QUARANTINE
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError


def release(root: Path, coloured: bool = False) -> Path:
    """Pictures in the ways in which grey ones are saved: as grey, as colours that are equal, as JPEGs of both."""
    for number, name in enumerate(("a.png", "b.png", "c.jpg", "d.jpg", "e.png")):
        grey = Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 50), np.uint8))
        image = grey.convert(("L", "RGB", "L", "RGB", "RGBA")[number])
        root.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    if coloured:
        Image.fromarray(np.random.default_rng(9).integers(0, 256, (40, 50, 3), np.uint8)).save(root / "f.png")
    return root


def made(release: Path, store: Path, encoded: bool = False) -> CaseStore:
    columns = Columns(modality="xray", domain="chest")
    order = Order("folder", str(release), str(store), Form(32), encoded, Split("image"), columns=columns)
    prepare(order, on_cores(1), Watcher())
    return CaseStore(store)


def notes(store: CaseStore) -> list[tuple[str, str]]:
    rows = pa.ipc.open_file(pa.memory_map(str(store.folder / QUARANTINE))).read_all().to_pylist()
    return [(row["image"], row["reason"]) for row in rows]


def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain without the declaration, as it was."""
    monkeypatch.setattr("dermsearch.data.prepare.prepare.DOMAINS.find", lambda name: replace(CHEST, grey=()))


@pytest.mark.parametrize("encoded", [False, True])
def test_the_store_is_to_keys_what_it_was(tmp_path: Path, encoded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files = release(tmp_path / "r")
    new = made(files, tmp_path / "new", encoded)
    as_before(monkeypatch)
    old = made(files, tmp_path / "old", encoded)
    rows = np.arange(len(new))
    assert len(new) == 5 and new.fingerprint == old.fingerprint
    assert np.array_equal(new.pictures("xray", rows)[0], old.pictures("xray", rows)[0])
    assert new.grey == ("xray",) and old.grey == ()
    assert [store.planes("xray", rows)[0].shape[3] for store in (new, old)] == [1, 3]
    assert new.about["format"] == (FORMAT if encoded else GREY) and old.about["format"] == FORMAT
    share = new.kept("xray", 0).nbytes / old.kept("xray", 0).nbytes
    assert share == (1.0 if encoded else pytest.approx(1 / 3))
    mark, text = found(new.folder)["files"]
    assert mark == OK, text


def test_what_is_odd_of_a_grey_picture_are_colours(tmp_path: Path) -> None:
    store = made(release(tmp_path / "r", coloured=True), tmp_path / "s")
    assert notes(store) == [("f.png", "has colours: is kept in grey")]
    seen = store.pictures("xray", np.array([5]))[0][0]
    assert (seen == seen[..., :1]).all() and seen.std() > 5


def test_a_mixture_of_encoded_stores_is_read_as_each_keeps_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [release(tmp_path / "r"), release(tmp_path / "q", coloured=True)]
    (files[1] / "a.png").unlink()
    new = made(files[0], tmp_path / "new", encoded=True)
    as_before(monkeypatch)
    old = made(files[1], tmp_path / "old", encoded=True)
    for copied in (True, False):
        mix([new.folder, old.folder], tmp_path / f"mix{copied}", copied=copied)
        mixed = CaseStore(tmp_path / f"mix{copied}")
        colours = mixed.pictures("xray", np.array([len(mixed) - 1]))[0][0]
        assert mixed.grey == () and not (colours == colours[..., :1]).all(), "of a store that declares nothing"


def test_an_earlier_store_at_the_same_place_is_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = release(tmp_path / "r")
    with monkeypatch.context() as patch:
        as_before(patch)
        made(files, tmp_path / "s")
    assert made(files, tmp_path / "s").grey == ()
    with pytest.raises(UserError, match="holds another case store already"):
        made(files, tmp_path / "s", encoded=True)
