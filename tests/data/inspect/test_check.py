"""`check` finds what was done to a store, and says it in words, never with a traceback."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermsearch.data.inspect.check import FAILED, OK, WARNING, check
from dermsearch.data.prepare.build import Ingredients, finish, read_heads
from dermsearch.data.prepare.divide import note
from dermsearch.data.prepare.shard import CasePlanes, as_plane, write_shard
from dermsearch.data.sources.base import CaseRecord, Expected
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import CARD, INDEX, MANIFEST, QUARANTINE, of_itself
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

CLASSES: dict[str, tuple[str, ...]] = {"diagnosis": ("NEV", "MEL")}
Pixels = dict[str, np.ndarray]


def noise(seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), np.uint8)


def rows(n: int = 24, start: int = 0, side: int = 16) -> list[tuple[CaseRecord, Pixels]]:
    """Cases in a split that is sound: two of a lesion, both in one split, and both classes in each."""
    found = []
    for i in range(n):
        pair = i // 2
        who = {"case": f"c{start + i}", "lesion": f"l{start // 2 + pair}", "patient": f"p{start // 2 + pair}"}
        split = ("train", "train", "val", "test")[pair % 4]
        images = {"derm": f"c{start + i}.jpg"}
        labels: dict[str, str | None] = {"diagnosis": CLASSES["diagnosis"][i % 2]}
        pixels = {"derm": noise(start + i, side)}
        found.append((CaseRecord(images=images, labels=labels, split=split, metadata={"age": float(i)}, **who), pixels))
    return found


def make(folder: Path, cases: list[tuple[CaseRecord, Pixels]], shard: int = 8, **other: Any) -> Path:
    """A store with shards of eight cases; the file of an image is its name."""
    store = Folder(folder)
    encoded, side = other.get("encoded", False), min(next(iter(cases[0][1].values())).shape[:2])
    modalities = tuple(dict.fromkeys(m for _, pixels in cases for m in pixels))
    for start in range(0, len(cases), shard):
        entries = []
        for row, (record, pixels) in enumerate(cases[start : start + shard], start):
            planes = {
                m: as_plane(x, (60, 80), record.images[m].encode().ljust(16, b"."), encoded) for m, x in pixels.items()
            }
            entries.append(CasePlanes(row, planes))
        write_shard(store, start // shard, entries, modalities)
    heads, shards = read_heads(store, -(-len(cases) // shard))
    given = Ingredients([r for r, _ in cases], CLASSES, modalities, side, settings={"source": "test", "fit": "keep"})
    given = replace(given, **{"keep_duplicates": True, **other})
    finish(store, heads, shards, given)
    return folder


def found(folder: Path) -> dict[str, tuple[str, str]]:
    report = check(folder)
    assert all(len(line) <= 100 for line in report.lines[1:]) and len(report.lines) < 40
    assert report.failed == any(mark == FAILED for mark, _, _ in report.found)
    return {question: (mark, answer) for mark, question, answer in report.found}


def changed(where: int, **what: Any) -> list[tuple[CaseRecord, Pixels]]:
    cases = rows()
    cases[where] = (replace(cases[where][0], **what), cases[where][1])
    return cases


def flip(path: Path, at: float | int) -> None:
    data = bytearray(path.read_bytes())
    data[at if isinstance(at, int) else int(at * len(data))] ^= 1
    path.write_bytes(data)


def edit(folder: Path, **what: Any) -> None:
    about = {**json.loads((folder / MANIFEST).read_text()), **what}
    (folder / MANIFEST).write_text(json.dumps({**about, "checksum": of_itself(about)}))


def test_a_sound_store(tmp_path):
    heard: list[tuple[int, int]] = []
    make(tmp_path / "s", rows())
    report = check(tmp_path / "s", lambda done, files: heard.append((done, files)))
    assert not report.failed and {mark for mark, _, _ in report.found} == {OK}
    assert heard == [(i, 5) for i in range(6)]
    assert report.lines[-1] == "All is well. 12 ok"


@pytest.mark.parametrize("name", ["patient", "lesion"])
def test_a_shared_patient_or_lesion(tmp_path, name):
    cases = changed(4, **{name: getattr(rows()[0][0], name)})  # c4 is in val, c0 in train
    answers = found(make(tmp_path / "s", cases))
    assert answers[f"{name}s"][0] == answers["groups"][0] == FAILED
    assert "c0 (train) and c4 (val)" in answers[f"{name}s"][1] and "--split-by" in answers[f"{name}s"][1]
    other = {"patient": "lesions", "lesion": "patients"}[name]
    assert answers[other][0] == OK


def test_a_split_by_lesion_may_part_patients_and_one_by_image_leaks_by_design(tmp_path):
    cases = [(replace(r, patient="p", split=None), x) for r, x in rows()]
    answers = found(make(tmp_path / "lesion", cases, split=Split("lesion")))
    assert (answers["patients"][0], answers["groups"][0], answers["lesions"][0]) == (WARNING, WARNING, OK)
    answers = found(make(tmp_path / "image", cases, split=Split("image")))
    assert answers["split"][0] == answers["patients"][0] == answers["lesions"][0] == WARNING
    assert "it leaks" not in answers["patients"][1] and "BY IMAGE" in answers["split"][1]


def test_a_shared_file_and_shared_pixels(tmp_path):
    answers = found(make(tmp_path / "file", changed(6, images={"derm": "c0.jpg"})))
    assert answers["pictures"][0] == FAILED and "the same file in" in answers["pictures"][1]
    assert "c0 (train) and c6 (test)" in answers["pictures"][1]
    cases = rows()
    cases[6] = (cases[6][0], cases[0][1])
    answers = found(make(tmp_path / "pixels", cases))
    assert answers["pictures"][0] == FAILED and "the same picture in" in answers["pictures"][1]
    assert answers["lookalikes"][0] == OK  # told once


@pytest.mark.parametrize("encoded", [False, True])
def test_lookalikes(tmp_path, encoded):
    cases = rows()
    near = cases[0][1]["derm"].copy()
    near[0, 0] ^= 1
    cases[6] = (cases[6][0], {"derm": near})
    answers = found(make(tmp_path / "s", cases, encoded=encoded))
    assert answers["lookalikes"][0] == WARNING and "c0 (train) and c6 (test)" in answers["lookalikes"][1]
    far = (near.astype(int) // 2).astype(np.uint8)  # as bright as never: the same hash, another thumbnail
    cases[6] = (cases[6][0], {"derm": far})
    assert found(make(tmp_path / "far", cases))["lookalikes"][0] == OK


def test_a_flipped_pixel_names_the_case(tmp_path):
    folder = make(tmp_path / "s", rows())
    shard = folder / "images-00001.arrow"
    flip(shard, shard.read_bytes().index(rows()[11][1]["derm"].tobytes()) + 7)
    answers = found(folder)
    assert answers["files"] == (
        FAILED,
        "1 of 5 files not as written: images-00001.arrow is damaged: 1 damaged case: c11",
    )
    assert "not looked for" in answers["lookalikes"][1] and answers["manifest"][0] == OK


@pytest.mark.parametrize("how", ["missing", "empty", "half"])
def test_a_lost_shard_names_all_its_cases(tmp_path, how):
    folder = make(tmp_path / "s", rows())
    shard = folder / "images-00002.arrow"
    data = shard.read_bytes()
    shard.unlink()
    if how != "missing":
        shard.write_bytes(data[: 0 if how == "empty" else len(data) // 2])
    mark, answer = found(folder)["files"]
    assert mark == FAILED and "8 damaged cases: c16 c17 c18 ..." in answer
    assert ("is missing" if how == "missing" else "is damaged") in answer


@pytest.mark.parametrize("name", [INDEX, QUARANTINE, "images-00000.arrow"])
def test_damage_anywhere_is_found(tmp_path, name):
    whole = make(tmp_path / "s", rows())
    for i, at in enumerate(np.linspace(0, 0.999, 12)):
        folder = Path(shutil.copytree(whole, tmp_path / f"s{i}"))
        flip(folder / name, float(at))
        assert check(folder).failed
        (folder / name).write_bytes((whole / name).read_bytes()[: int(at * (whole / name).stat().st_size)])
        assert check(folder).failed
    (folder / name).unlink()
    assert check(folder).failed


def test_an_edited_manifest(tmp_path):
    whole = make(tmp_path / "s", rows())
    about = json.loads((whole / MANIFEST).read_text())
    edits: list[dict[str, Any]] = [
        {"settings": {"source": "other"}}, {"side": 99}, {"cases": 7}, {"classes": {"diagnosis": ["MEL", "NEV"]}},
        {"split": {"by": "patient", "seed": 0}}, {"fingerprint": "0"}, {"encoded": True}, {"files": {}},
        {"files": {k: v for k, v in about["files"].items() if "00001" not in k}}, {"modalities": ["derm", "xray"]},
        {"classes": None}, {"modalities": 3}, {"files": None}, {"files": []}, {"split": "x"},
        {"expected": {"classes": {"other": {"x": 1}}}}, {"expected": 3},
    ]  # fmt: skip
    for i, what in enumerate(edits):
        folder = Path(shutil.copytree(whole, tmp_path / f"s{i}"))
        edit(folder, **what)
        assert check(folder).failed, what
    for name in ("fingerprint", "side", "files", "split", "modalities"):
        folder = Path(shutil.copytree(whole, tmp_path / f"without-{name}"))
        (folder / MANIFEST).write_text(json.dumps({k: v for k, v in about.items() if k != name}))
        assert check(folder).failed, name


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"format": 1}', "\0"])
def test_no_manifest_to_read(tmp_path, text):
    folder = make(tmp_path / "s", rows())
    (folder / MANIFEST).write_text(text)
    assert check(folder).failed


def test_no_store(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="is not a case store"):
            check(folder)


def expecting(**what: Any) -> dict[str, Any]:
    return {"expected": asdict(Expected(**what))}


def test_published_counts(tmp_path):
    right = Expected(24, 12, 12, {"train": 12, "val": 6, "test": 6}, {"diagnosis": {"NEV": 12, "MEL": 12}})
    folder = make(tmp_path / "s", rows(), about={"expected": asdict(right)})
    assert found(folder)["counts"] == (OK, "24 cases, and all other counts, are as published")
    for wrong, said in (
        ({"cases": 25}, "cases: 24 of 25"),
        ({"cases": 23}, "cases: 24 of 23"),
        ({"lesions": 13}, "lesions: 12 of 13"),
        ({"patients": 11}, "patients: 12 of 11"),
        ({"splits": {"train": 13}}, "train cases: 12 of 13"),
        ({"classes": {"diagnosis": {"NEV": 13}}}, "of diagnosis NEV: 12 of 13"),
        ({"classes": {"diagnosis": {"SCC": 1}}}, "of diagnosis SCC: 0 of 1"),
    ):
        edit(folder, **expecting(**wrong))
        assert found(folder)["counts"] == (
            WARNING,
            f"not as published, and the quarantine table does not tell why: {said}",
        )


def test_counts_that_the_quarantine_table_explains(tmp_path):
    left_out = [note(CaseRecord(f"c{i}", {}), "", "left out", "is truncated") for i in (24, 25)]
    about = expecting(cases=26, lesions=13, classes={"diagnosis": {"NEV": 13, "MEL": 13}})
    folder = make(tmp_path / "s", rows(), notes=left_out, about=about)
    assert found(folder)["counts"] == (OK, "24 of 26 cases published; 2 left out (see quarantine)")
    edit(folder, **expecting(cases=27))
    assert found(folder)["counts"][0] == WARNING


def test_a_published_training_set_parted_for_validation_counts_whole(tmp_path):
    cases = [(replace(r, split="train" if r.split == "val" else r.split), x) for r, x in rows()]
    folder = make(tmp_path / "s", cases, about=expecting(splits={"train": 18, "test": 6}))
    assert len(CaseStore(folder).split("val")) > 0 and found(folder)["counts"][0] == OK


def test_uneven_and_absent_classes(tmp_path):
    cases = rows(240)
    cases = [(replace(r, labels={"diagnosis": "NEV"}) if r.split == "test" else r, x) for r, x in cases]
    answers = found(make(tmp_path / "s", cases))
    assert answers["balance"][0] == WARNING and "diagnosis NEV in test (+37.5)" in answers["balance"][1]
    assert answers["classes"] == (WARNING, "1 time a class has no case in a split: diagnosis MEL in test")
    few = [(replace(r, labels={"diagnosis": "NEV"}) if r.split == "test" else r, x) for r, x in rows()]
    assert found(make(tmp_path / "few", few))["balance"] == (OK, "no class has the 50 cases that would tell")


def test_shares_that_are_the_same_in_every_split_are_told(tmp_path):
    cases = [(replace(r, labels={"diagnosis": "NEV"}), x) for r, x in rows(80)]
    balance = found(make(tmp_path / "s", cases))["balance"]
    assert balance[0] == OK and balance[1].endswith("in every split; most apart: diagnosis NEV in train (+0.0)")


def test_the_card_may_be_edited(tmp_path):
    folder = make(tmp_path / "s", rows())
    (folder / CARD).write_text("mine")
    assert not check(folder).failed
