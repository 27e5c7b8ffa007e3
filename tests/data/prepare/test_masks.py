"""Masks from a folder beside a source: found by name, laid as the image is, and what does not fit is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data import releases
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.masks import lay_masks, plain
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import CaseRecord
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError


@pytest.mark.parametrize(
    ("name", "bare"),
    [("A/b_mask.png", "a/b"), ("b.png", "b"), ("c_segmentation.png", "c"), ("c_lungs.jpg", "c"), ("_mask.png", "")],
)
def test_names_without_what_says_that_they_are_masks(name: str, bare: str) -> None:
    assert plain(name) == bare


def chests(root: Path) -> Path:
    """A release of which every image has a mask, a left half, but for one; one of another size."""
    release = releases.chestxray14(root / "release")
    for number, path in enumerate(sorted(release.rglob("*.png"))):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 60), np.uint8)).save(path)
        mask = np.zeros((40, 60) if number != 2 else (20, 30), np.uint8)
        mask[:, : mask.shape[1] // 2] = 255
        if number != 3:
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"{path.stem}{'_mask' * (number % 2)}.png")
    return release


def made(release: Path, store: Path, masks: str | None) -> CaseStore:
    order = Order("chestxray14", str(release), str(store), Form(32), split=Split("patient"), masks=masks, max_bad=0)
    prepare(order, on_cores(1), Watcher())
    prepare(order, on_cores(1), Watcher())  # it is there already, and the same
    return CaseStore(store)


def test_masks_lie_in_the_store_and_one_of_another_size_is_told(tmp_path: Path) -> None:
    release = chests(tmp_path)
    store = made(release, tmp_path / "s", str(tmp_path / "masks"))
    assert store.has("mask").tolist() == [True, True, False, False]
    canvas, _ = store.masks(np.array([0, 1]))
    assert canvas.shape == (2, 32, 48) and (canvas[:, :, :23] == 255).all() and (canvas[:, :, 25:] == 0).all()
    notes = (tmp_path / "s" / "README.md").read_text() + str(store.about["notes_by_kind"])
    assert "mask left out" in notes
    plainly = made(release, tmp_path / "plain", None)
    assert "masks" not in plainly.settings and store.settings["masks"] and plainly.fingerprint != store.fingerprint
    assert not plainly.about["masks"]


def record(case: str, image: str) -> CaseRecord:
    return CaseRecord(case=case, images={"xray": image})


def test_a_bare_name_that_several_images_have_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    for name in ("p1/view.png", "view.png", "other.png", "CASE4.png"):
        (tmp_path / name).write_bytes(b"")
    records = [record("c1", "p1/view.jpg"), record("c2", "p2/view.jpg"), record("c3", "a/other.jpg")]
    records.append(record("case4", "b/x.jpg"))
    lay_masks(records, str(tmp_path))
    assert [r.mask for r in records] == ["p1/view.png", None, "other.png", "CASE4.png"]


def test_masks_among_the_images_are_not_these(tmp_path: Path) -> None:
    """Else every image, whose name comes before its mask's, would be its own."""
    for name in ("a.png", "a_mask.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    for where in (str(tmp_path), f"{tmp_path}/../{tmp_path.name}/"):
        records = [record("c1", "a.png"), record("c2", "b.png")]
        lay_masks(records, where, str(tmp_path))
        assert [r.mask for r in records] == ["a_mask.png", None]


def test_a_name_with_dots_in_it_is_whole(tmp_path: Path) -> None:
    """As those of DICOM files are, which would all be called 1.2.840."""
    for name in ("p1_mask.png", "p1.v2_mask.png", "1.2.840.7.png", "1.2.840.8_mask.png"):
        (tmp_path / name).write_bytes(b"")
    images = ("x/p1.png", "x/p1.v2.png", "x/1.2.840.7.dcm", "x/1.2.840.8.dcm", "x/1.2.840.dcm")
    records = [record(f"c{i}", image) for i, image in enumerate(images)]
    lay_masks(records, str(tmp_path))
    assert [r.mask for r in records] == ["p1_mask.png", "p1.v2_mask.png", "1.2.840.7.png", "1.2.840.8_mask.png", None]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", r"^--masks: there is no folder '.*nowhere'$"),
        ("", r"^--masks: no file in .* is called as a case or its image, such as c1.png or c1_mask.png$"),
    ],
)
def test_what_is_refused(folder: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "z.png").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        lay_masks([record("c1", "a.jpg")], str(tmp_path / folder))
