"""The case store: what was written is what is read, and its fingerprint is that of its content."""

import copy
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.inspect.test_check import flip, make, rows

from dermsearch.data.case import Case
from dermsearch.data.prepare import build
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import INDEX, MANIFEST, shard_file
from dermsearch.errors import UserError

CLASSES = {"diagnosis": ("NEV", "MEL"), "streaks": ("absent", "present")}
SETTINGS = {"source": "test", "seed": 0}


def cases(n: int = 12, size: int = 8) -> list[Case]:
    rng = np.random.default_rng(0)
    return [
        Case(
            case=f"c{i}", lesion=f"l{i // 2}", patient=f"p{i // 4}",
            images={m: rng.integers(0, 256, (size, size, 3), np.uint8) for m in ("derm", "clinic")},
            labels={"diagnosis": i % 2} if i % 3 else {"diagnosis": i % 2, "streaks": 1},
            metadata={"age": None if i == 4 else 20.0 + i, "sex": "female"},
            mask=(rng.random((size, size)) > 0.5).astype(np.uint8) * 255,
        )
        for i in range(n)
    ]  # fmt: skip


def splits(rows: list[Case]) -> dict[str, str]:
    return {c.case: ("train", "val", "test")[i % 3] for i, c in enumerate(rows)}


def write(folder: Path, rows: list[Case] | None = None, **other: Any) -> CaseStore:
    rows = cases() if rows is None else rows
    return write_store(folder, rows, other.get("split_of", splits(rows)), CLASSES, other.get("settings", SETTINGS))


def test_round_trip(tmp_path):
    rows = cases()
    write(tmp_path / "s", rows)
    store = CaseStore(tmp_path / "s")
    assert (len(store), store.side, store.modalities, store.classes) == (12, 8, ("derm", "clinic"), CLASSES)
    every = np.arange(12)
    for modality in store.modalities:
        canvas, frame = store.pictures(modality, every)
        assert frame is None and np.array_equal(canvas, np.stack([c.images[modality] for c in rows]))
        some, _ = store.pictures(modality, np.array([7, 0, 7]))
        assert np.array_equal(some, np.stack([rows[i].images[modality] for i in (7, 0, 7)]))
    assert np.array_equal(store.masks(every)[0], np.stack([c.mask for c in rows]))
    assert store.label("diagnosis").tolist() == [i % 2 for i in range(12)]
    assert store.label("streaks").tolist() == [-1 if i % 3 else 1 for i in range(12)]
    assert store.strings("patient").tolist() == [c.patient for c in rows]
    assert store.groups().tolist() == [i // 4 for i in range(12)]
    assert store.metadata("age") == [c.metadata["age"] for c in rows]
    assert [store.split(s).tolist() for s in ("train", "val", "test")] == [list(range(i, 12, 3)) for i in range(3)]
    assert store.settings == SETTINGS


def test_pictures_of_different_sizes_share_a_canvas(tmp_path):
    rows = cases()
    rng = np.random.default_rng(1)
    sizes = [(8, 8 + i) if i % 2 else (8 + i, 8) for i in range(12)]
    for case, size in zip(rows, sizes, strict=True):
        case.images = {"derm": rng.integers(1, 256, (*size, 3), np.uint8)}
        case.mask = None
    store = write(tmp_path / "s", rows)
    canvas, frame = store.pictures("derm", np.array([3, 10, 0]))
    assert canvas.shape == (3, 18, 11, 3) and frame is not None
    assert frame.tolist() == [[0, 0, 8, 11], [0, 0, 18, 8], [0, 0, 8, 8]]
    for picture, (_, _, h, w), row in zip(canvas, frame, (3, 10, 0), strict=True):
        assert np.array_equal(picture[:h, :w], rows[row].images["derm"])
        assert not picture[h:].any() and not picture[:, w:].any()
    assert store.pictures("derm", np.array([5, 5]))[1] is None


def test_a_case_may_lack_an_image(tmp_path):
    rows = cases()
    del rows[2].images["clinic"]
    store = write(tmp_path / "s", rows)
    assert np.flatnonzero(~store.has("clinic")).tolist() == [2] and store.has("derm").all()
    assert not store.has("xray").any() and store.has("mask").all()
    canvas, frame = store.pictures("clinic", np.array([1, 2]))
    assert (
        frame is not None and frame[1].tolist() == [0, 0, 0, 0] and np.array_equal(canvas[0], rows[1].images["clinic"])
    )


def test_many_shards_are_one_store(tmp_path, monkeypatch):
    whole = write(tmp_path / "whole")
    monkeypatch.setattr(build, "SHARD_CASES", 5)
    parts = write(tmp_path / "parts")
    assert sorted(p.name for p in parts.folder.glob("images-*")) == [f"images-0000{i}.arrow" for i in range(3)]
    assert parts.fingerprint == whole.fingerprint
    rows = np.array([11, 0, 5, 4, 9])
    assert np.array_equal(parts.pictures("derm", rows)[0], whole.pictures("derm", rows)[0])


def test_images_are_read_from_the_mapped_file(tmp_path):
    """Without a copy before the canvas: their memory lies in the mapping of a shard."""
    store = write(tmp_path / "s", cases(200, 16))
    image = store._bytes("derm", 0, 17)
    assert not image.flags.writeable
    address = image.__array_interface__["data"][0]
    lines = Path("/proc/self/maps").read_text().splitlines()
    ends = [[int(x, 16) for x in line.split()[0].split("-")] for line in lines if line.endswith("images-00000.arrow")]
    assert any(low <= address and address + image.nbytes <= high for low, high in ends)


def test_few_labels_are_a_view_of_the_training_cases(tmp_path):
    rows = cases(120)
    for i, case in enumerate(rows):
        case.labels["streaks"] = int(i < 18)
    store = write(tmp_path / "s", rows)
    train, two, five = store.split("train"), store.split("train:2"), store.split("train:5")
    assert set(two) < set(five) < set(train)
    assert np.bincount(store.label("diagnosis")[five]).tolist() == [5, 5]
    assert np.bincount(store.label("streaks")[five]).tolist() == [5, 5]  # not of the first label alone
    assert set(store.split("train:10%")) < set(store.split("train:50%")) < set(store.split("train:100%")) == set(train)
    assert 0 <= len(store.split("train:50%")) - len(train) / 2 <= 1
    assert len(set(store.groups()[five].tolist())) == 9  # four people have all five with streaks
    assert np.array_equal(five, store.split("train:5", draw=(0, 0)))
    draws = {tuple(store.split("train:5", draw=draw)) for draw in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))}
    assert len(draws) == 5
    for wrong in ("0", "-1", "x", "0%", "101%", "2.5", "nan"):
        with pytest.raises(UserError, match=r"must be train:N"):
            store.split(f"train:{wrong}")


def test_few_labels_are_of_many_patients(tmp_path):
    rows = cases(60)
    for i, case in enumerate(rows):
        case.lesion, case.patient = "", f"p{max(0, i - 30)}"  # the first has half of the cases
    store = write(tmp_path / "s", rows, split_of={case.case: "train" for case in rows})
    for number in range(5):
        few = store.split("train:10", draw=(0, number))
        assert max(np.unique(store.groups()[few], return_counts=True)[1]) <= 2  # in each class once


def changed(what: str) -> tuple[list[Case], dict[str, Any]]:
    """The same content, but for one thing."""
    rows, other = copy.deepcopy(cases()), {}
    if what == "pixel":
        rows[5].images["clinic"][3, 2, 1] ^= 1
    elif what == "mask":
        assert rows[5].mask is not None
        rows[5].mask[0, 0] ^= 255
    elif what == "label":
        rows[5].labels["diagnosis"] ^= 1
    elif what == "unknown label":
        rows[5].labels["streaks"] = 0
    elif what == "patient":
        rows[5].patient = "someone else"
    elif what == "metadata":
        rows[5].metadata["age"] = 99.0
    elif what == "split":
        other["split_of"] = {**splits(rows), "c5": "train"}
    elif what == "order":
        rows[0], rows[3] = rows[3], rows[0]
        other["split_of"] = splits(cases())
    elif what == "settings":
        other["settings"] = {**SETTINGS, "seed": 1}
    return rows, other


CHANGES = ["pixel", "mask", "label", "unknown label", "patient", "metadata", "split", "order", "settings"]


def test_fingerprint_is_that_of_the_content(tmp_path):
    found = [write(tmp_path / "one").fingerprint, write(tmp_path / "two").fingerprint]
    assert found[0] == found[1] == CaseStore(tmp_path / "one").fingerprint
    for what in CHANGES:
        rows, other = changed(what)
        found.append(write(tmp_path / what, rows, **other).fingerprint)
    assert len(set(found)) == 1 + len(CHANGES)


@pytest.mark.parametrize("name", [MANIFEST, INDEX, "images-00000.arrow"])
@pytest.mark.parametrize("left", [0, 1, 7, 0.1, 0.5, 0.9, 0.999])
def test_a_half_written_file_is_no_store(tmp_path, name, left):
    store = write(tmp_path / "s")
    whole = (store.folder / name).read_bytes()
    (store.folder / name).write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(UserError, match=r"is not a case store|is missing or damaged"):
        CaseStore(store.folder).pictures("derm", np.arange(12))


def test_a_manifest_that_says_something_else_is_refused(tmp_path):
    """Any field of it, though the file is sound JSON and the checksums of all others are right."""
    manifest = write(tmp_path / "s").folder / MANIFEST
    whole = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(dict(reversed(whole.items()))))  # the order of fields says nothing
    assert len(CaseStore(tmp_path / "s")) == 12
    for key in set(whole) - {"format"}:
        for other in ({**whole, key: "ab" if key == "checksum" else [whole[key]]}, {**whole, key: None}):
            manifest.write_text(json.dumps(other))
            with pytest.raises(UserError, match=f"{MANIFEST} is damaged or was changed by hand; make the store again"):
                CaseStore(tmp_path / "s")
        manifest.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(UserError, match=f"{MANIFEST} is damaged"):
            CaseStore(tmp_path / "s")


def test_other_things_are_no_stores(tmp_path):
    with pytest.raises(UserError, match="is not a case store"):
        CaseStore(tmp_path / "nothing")
    for name, text in (("plain", "{}"), ("list", "[]"), ("broken", "["), ("newer", '{"format": 99}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(text)
        with pytest.raises(UserError, match=r"is not a case store|another version"):
            CaseStore(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path):
    rows = cases()
    with pytest.raises(KeyError):
        write(tmp_path / "s", rows, split_of={})
    assert list(tmp_path.iterdir()) == []


def test_writers_at_the_same_time(tmp_path):
    """All come back with the store, one folder stands there, and nothing lies around."""
    found: list[str] = []
    gate = threading.Barrier(6)

    def one() -> None:
        gate.wait()
        found.append(write(tmp_path / "deep" / "s").fingerprint)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 6 and len(set(found)) == 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s"]
    names = sorted(p.name for p in (tmp_path / "deep" / "s").iterdir())
    assert names == ["README.md", "images-00000.arrow", INDEX, "quarantine.arrow", MANIFEST]


def test_other_content_does_not_take_the_place_of_a_store(tmp_path):
    first = write(tmp_path / "s")
    rows, other = changed("pixel")
    with pytest.raises(UserError, match="holds other cases"):
        write(tmp_path / "s", rows, **other)
    assert CaseStore(tmp_path / "s").fingerprint == first.fingerprint


@pytest.mark.parametrize("encoded", [False, True])
def test_flipped_pixels_are_not_studied(encoded: bool, tmp_path):
    """Each shard is looked at when it is first mapped, so that other shards go on."""
    folder = make(tmp_path / "s", rows(24), encoded=encoded)
    flip(folder / "images-00001.arrow", 0.5)
    store = CaseStore(folder)
    assert len(store.pictures("derm", np.arange(8))[0]) == 8
    with pytest.raises(UserError, match=r"images-00001.arrow is missing or damaged; make the store again"):
        store.pictures("derm", np.arange(16))


def test_a_shard_is_looked_at_once(tmp_path, monkeypatch):
    store, seen = CaseStore(make(tmp_path / "s", rows(24))), []
    real = CaseStore._mapped
    monkeypatch.setattr(CaseStore, "_mapped", lambda self, name: seen.append(name) or real(self, name))
    for _ in range(3):
        store.pictures("derm", np.arange(24))
    assert seen == [shard_file(n) for n in range(3)]


def test_without_more_threads_pictures_are_decoded_in_this_one(tmp_path, monkeypatch):
    store = CaseStore(make(tmp_path / "s", rows(24), encoded=True))
    whole = store.pictures("derm", np.arange(24))[0]

    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert np.array_equal(store.pictures("derm", np.arange(24))[0], whole)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_an_index_with_a_flipped_bit_is_not_studied(at: float, tmp_path):
    """It may be a label's."""
    folder = make(tmp_path / "s", rows(24))
    flip(folder / INDEX, at)
    with pytest.raises(UserError, match=f"{INDEX} is missing or damaged; make the store again"):
        CaseStore(folder)
