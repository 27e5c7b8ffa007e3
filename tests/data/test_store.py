"""The case store: what was written is what is read, and its fingerprint is that of its content."""

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dermsearch.data.case import Case
from dermsearch.data.store import FILE, CaseStore, describe, write_store
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
    assert (len(store), store.size, store.modalities, store.classes) == (12, 8, ("derm", "clinic"), CLASSES)
    for modality in store.modalities:
        assert np.array_equal(store.pixels(modality), np.stack([c.images[modality] for c in rows]))
    assert np.array_equal(store.masks(), np.stack([c.mask for c in rows]))
    assert store.label("diagnosis").tolist() == [i % 2 for i in range(12)]
    assert store.label("streaks").tolist() == [-1 if i % 3 else 1 for i in range(12)]
    assert store.patients().tolist() == [c.patient for c in rows]
    assert store.metadata("age") == [c.metadata["age"] for c in rows] and store.metadata("site") == [None] * 12
    assert [store.split(s).tolist() for s in ("train", "val", "test")] == [list(range(i, 12, 3)) for i in range(3)]
    assert store.settings == SETTINGS
    assert "12 cases (4 train, 4 val, 4 test), 8 px, derm + clinic" in "\n".join(describe(store))


def test_pixels_are_the_mapped_file(tmp_path):
    """No copy: the array is read-only, and its memory lies in the mapping of the file."""
    store = write(tmp_path / "s", cases(200, 16))
    images = store.pixels("derm")
    assert not images.flags.writeable and not images.flags.owndata
    address = images.__array_interface__["data"][0]
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(FILE)]
    ends = [[int(x, 16) for x in span[0].split("-")] for span in spans]
    assert any(low <= address and address + images.nbytes <= high for low, high in ends)
    assert np.shares_memory(images, store.pixels("derm"))


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


@pytest.mark.parametrize("left", [0, 1, 7, 0.1, 0.5, 0.9, 0.999])
def test_a_half_written_file_is_no_store(tmp_path, left):
    store = write(tmp_path / "s")
    whole = (store.folder / FILE).read_bytes()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / FILE).write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(UserError, match="is not a case store"):
        CaseStore(tmp_path / "half")


def test_other_things_are_no_stores(tmp_path):
    with pytest.raises(UserError, match="is not a case store"):
        CaseStore(tmp_path / "nothing")
    table = pa.table({"a": [1]})
    for name, metadata in (("plain", None), ("other", {"dermsearch": "{}"}), ("broken", {"dermsearch": "["})):
        (tmp_path / name).mkdir()
        about = table.replace_schema_metadata(metadata)
        with pa.ipc.new_file(str(tmp_path / name / FILE), about.schema) as writer:
            writer.write_table(about)
        with pytest.raises(UserError, match=r"is not a case store|another version"):
            CaseStore(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path):
    rows = cases()
    with pytest.raises(KeyError):
        write(tmp_path / "s", rows, split_of={})
    rows[3].images["derm"] = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError):
        write(tmp_path / "s", rows)
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
    assert [p.name for p in (tmp_path / "deep" / "s").iterdir()] == [FILE]


def test_other_content_does_not_take_the_place_of_a_store(tmp_path):
    first = write(tmp_path / "s")
    rows, other = changed("pixel")
    with pytest.raises(UserError, match="holds other cases"):
        write(tmp_path / "s", rows, **other)
    assert CaseStore(tmp_path / "s").fingerprint == first.fingerprint
