"""What has the right checksum and the wrong place, or is not what it should be: it is not believed, and made again."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
import torch

from dermsearch import __version__
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.storage.files import StoreLost, checksum, sealed
from dermsearch.storage.stages import PartialStage, StageStore, Unusable, file_of
from dermsearch.upkeep.upkeep import verify

PARTS = {ENCODERS: Part({}, {"w": torch.arange(6.0)})}
ABOUT = {"seconds": 1.0}
ROW = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5, "ci_low": 0.4, "n": 3}
TOLD: dict[str, Any] = {"protocol": "knn", "rows": [ROW], "confusions": [], "seconds": 1.0}


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(str(tmp_path / "store"))


def local(store: StageStore, name: str) -> Path:
    assert store.local is not None
    return store.local / name


@pytest.mark.parametrize("kind", ["stages", "segments", "weights"])
def test_a_folder_under_another_key_is_not_believed(store: StageStore, kind: str) -> None:
    store.commit("one", PARTS, [], ABOUT)
    store.commit_segment("one", ABOUT, PARTS)
    store.write_weights("one", "resnet", PARTS)
    read = {"stages": store.manifest, "segments": store.segment, "weights": lambda k: store.weights(k, "resnet")}[kind]
    end = "-resnet" * (kind == "weights")
    assert read("one") is not None
    shutil.copytree(local(store, f"{kind}/one{end}"), local(store, f"{kind}/two{end}"))
    assert read("two") is None
    if kind != "weights":  # nor is a stage taken for a segment
        other = "segments" if kind == "stages" else "stages"
        shutil.rmtree(local(store, f"{other}/one"))
        shutil.copytree(local(store, f"{kind}/one"), local(store, f"{other}/one"))
        assert {"stages": store.manifest, "segments": store.segment}[other]("one") is None


def test_the_judgement_of_another_stage_is_not_believed(store: StageStore) -> None:
    store.write_judgement("one", TOLD, "stage")
    shutil.copy(local(store, "scores/one.json"), local(store, "scores/two.json"))
    assert store.judgement("one", "stage") is not None and store.judgement("two") is None
    assert store.judgement("one", "other") is None
    store.write("scores/old.json", sealed({"stage": "stage", **TOLD}))  # before judgements knew their names
    assert store.judgement("old", "stage") is not None and store.judgement("old", "other") is None


def test_what_was_written_before_files_knew_their_names_is_read(store: StageStore) -> None:
    store.commit("k", PARTS, [{"epoch": 1}], ABOUT)
    manifest = json.loads(store.read("stages/k/manifest.json"))
    store.write("stages/k/manifest.json", sealed({k: v for k, v in manifest.items() if k not in ("name", "checksum")}))
    assert store.manifest("k") is not None and store.artifact("k") and store.history("k")


@pytest.mark.parametrize("judgement", [
    [], {}, {**TOLD, "rows": []}, {**TOLD, "rows": [{}]}, {k: v for k, v in TOLD.items() if k != "rows"},
    {**TOLD, "rows": {"a": 1}}, {**TOLD, "rows": None}, {**TOLD, "rows": [[]]}, {**TOLD, "confusions": None},
    {**TOLD, "rows": [{**ROW, "value": float("nan")}]}, {**TOLD, "rows": [{**ROW, "value": "0.5"}]},
    {**TOLD, "rows": [{**ROW, "ci_low": float("inf")}]}, {**TOLD, "seconds": None}, {**TOLD, "confusions": [{}]},
    {**TOLD, "rows": [{k: v for k, v in ROW.items() if k != "value"}]},
])  # fmt: skip
def test_what_is_no_judgement_counts_as_none(store: StageStore, judgement: Any) -> None:
    store.write("scores/j.json", sealed(judgement) if isinstance(judgement, dict) else json.dumps(judgement).encode())
    assert store.judgement("j") is None
    store.write_judgement("j", {**TOLD, "rows": [{**ROW, "value": None}]})
    assert store.judgement("j") is not None, "a value may be missing"


@pytest.mark.parametrize("parts", [None, [], {"heads": {}}])
def test_a_manifest_whose_parts_are_no_files_is_none(store: StageStore, parts: Any) -> None:
    store.write("stages/k/manifest.json", sealed({"files": {}, "parts": parts}))
    assert store.manifest("k") is None


HEADER = (2**40).to_bytes(8, "little")


@pytest.mark.parametrize("data", [b"", b"nothing", HEADER + b"{}", b"\2\0\0\0\0\0\0\0[]", b"\2\0\0\0\0\0\0\0{}x"])
def test_what_cannot_be_loaded_is_set_aside_and_told(store: StageStore, data: bytes) -> None:
    store.commit_files("stages/k", {file_of(ENCODERS): data, "history.json": b"[]"}, {"parts": {ENCODERS: {}}})
    assert store.manifest("k") is not None
    with pytest.raises(
        Unusable, match=r"stages/k cannot be loaded \(.+\) and was moved to damaged/.+/stages/k; the same"
    ):
        store.artifact("k")
    assert store.manifest("k") is None and len(store.notes) == 1
    assert store.names("damaged") and not store.names("stages")
    with pytest.raises(StoreLost):  # by somebody who found it whole before
        store.artifact("k") or store.history("k")
    store.commit("k", PARTS, [], ABOUT)
    assert store.artifact("k")[ENCODERS].state["w"].shape == (6,)


def test_who_only_looks_sets_nothing_aside(store: StageStore) -> None:
    store.commit_files("stages/k", {file_of(ENCODERS): b"?"}, {"parts": {ENCODERS: {}}})
    with pytest.raises(Unusable, match=r"stages/k cannot be loaded: "):
        StageStore(store.address, create=False).artifact("k")
    assert store.manifest("k") is not None and not store.names("damaged")


@pytest.mark.parametrize("history", [b"?", b"{}", b"[1]", b'[{"epoch": 2}]'])
def test_a_history_that_is_none_is_set_aside(store: StageStore, history: bytes) -> None:
    store.commit_files("stages/k", {"history.json": history}, {"parts": {}})
    with pytest.raises(Unusable, match=r"history\.json is none"):
        store.history("k")
    assert store.manifest("k") is None


def test_weights_that_cannot_be_loaded_are_put_there_again(store: StageStore) -> None:
    store.commit_files("weights/h-resnet", {file_of(ENCODERS): b"nothing"}, {"parts": {ENCODERS: {}}})
    assert store.weights("h", "resnet") is None
    store.write_weights("h", "resnet", PARTS)
    assert store.weights("h", "resnet") is not None


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/never",)


GOOD = {"learner": {}, "history": "[]", "version": __version__, "name": "partial/k/state.pt"}
STATES: dict[str, Any] = {
    "list": [1], "number": 3, "history": {**GOOD, "history": "?"}, "rows": {**GOOD, "history": "[1]"},
    "deep": {**GOOD, "history": "[" * 100_000}, "none": {k: v for k, v in GOOD.items() if k != "history"},
    "another's": {**GOOD, "name": "partial/other/state.pt"},
}  # fmt: skip


@pytest.mark.parametrize("wrong", [*STATES, "pickle", "zip", "empty", "flipped", "folder"])
def test_a_state_that_is_none_is_set_aside_and_said(store: StageStore, wrong: str) -> None:
    partial = PartialStage(store, "k", ["before"])
    PartialStage(store, "before").save({"learner": {}, "history": "[]"})
    if wrong == "folder":
        local(store, partial.name).mkdir(parents=True)
    else:
        buffer = io.BytesIO()
        torch.save(STATES.get(wrong, GOOD), buffer)
        data = {"pickle": pickle.dumps(Evil()), "zip": b"PK", "empty": b""}.get(wrong, buffer.getvalue())
        sum_of = b"0" * 16 if wrong == "flipped" else checksum(data).encode()
        store.write(partial.name, sum_of + data)
    assert partial.load() is not None and partial.loaded == "partial/before/state.pt", "a segment's is sound"
    (note,) = store.notes
    assert note.startswith("partial/k/state.pt is ") and "the stage begins anew; it was moved to damaged/" in note
    partial.save({"learner": {"w": torch.ones(1)}, "history": "[]"})
    assert PartialStage(store, "k").load() is not None and len(store.notes) == 1


def test_a_state_that_fits_nothing_is_rejected(store: StageStore) -> None:
    partial = PartialStage(store, "k")
    partial.save({"learner": {}, "history": "[]"})
    assert partial.load() is not None
    partial.reject("it lacks w")
    assert partial.load() is None and "does not fit its stage, which begins anew: it lacks w" in store.notes[0]


@pytest.mark.parametrize("name", ["scores/k.json", "stages/k/manifest.json", "partial/k/state.pt", "store.json"])
@pytest.mark.parametrize("wrong", ["folder", "pipe", "loop", "file for a folder", "loop for a folder"])
def test_what_stands_where_a_file_goes_stops_nobody(store: StageStore, name: str, wrong: str) -> None:
    path = local(store, name)
    if wrong.endswith("for a folder"):
        path = path.parent
        if path.parent == store.local or path == store.local:
            return  # the store's own folders are the user's affair
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        path.unlink()
    if wrong.startswith("loop"):
        path.symlink_to(path)
    elif wrong == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        os.mkfifo(path) if wrong == "pipe" else path.write_text("x")
    assert store.get(name) is None
    store.write(name, b"whole")
    assert store.read(name) == b"whole"


def test_what_is_no_progress_is_none(store: StageStore) -> None:
    for data in (b"[" * 100_000, b"[1]", b"{}", b"\xff"):
        store.write("partial/k/progress.json", data)
        assert store.progress("k") == []


@pytest.mark.parametrize("about, told", [
    ({"format": 9}, r"by dermsearch of another version in format 9"),
    ({"format": None}, "in format None"), ({}, "in format None"), ({"format": "3"}, "in format 3"),
])  # fmt: skip
def test_a_format_without_a_version_is_a_sentence(store: StageStore, about: dict, told: str) -> None:
    store.write("store.json", sealed(about))
    for create in (True, False):
        with pytest.raises(UserError, match=told):
            StageStore(store.address, create)


def read_only(monkeypatch: pytest.MonkeyPatch, number: int = errno.EROFS) -> None:
    """Every file system refuses to be written to."""

    class Fixed(pafs.LocalFileSystem):
        def refuse(self, path: str, *args: Any, **more: Any) -> Any:
            if not os.path.isdir(path):
                raise OSError(number, "cannot be written to", path)

        open_output_stream = create_dir = delete_file = delete_dir = move = refuse

    monkeypatch.setattr(pafs, "LocalFileSystem", Fixed)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_store_that_cannot_be_written_to_is_read(
    store: StageStore, monkeypatch: pytest.MonkeyPatch, number: int, tmp_path: Path
) -> None:
    store.commit("k", PARTS, [], ABOUT)
    read_only(monkeypatch, number)
    again = StageStore(store.address)
    assert again.manifest("k") is not None
    with pytest.raises(StoreLost, match="cannot be written to"):
        again.prepare("stages")
    with pytest.raises(StoreLost, match="cannot be written to"):
        again.commit("new", PARTS, [], ABOUT)
    with pytest.raises(StoreLost, match="cannot be written to"):
        StageStore(str(tmp_path / "none"))


def test_a_full_store_is_told_at_once(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only(monkeypatch, errno.ENOSPC)
    with pytest.raises(StoreLost, match="cannot be written to"):
        StageStore(store.address)


def test_the_note_of_an_opening_of_other_data_is_not_counted(store: StageStore) -> None:
    for fingerprint in ("one", "one", "two"):
        store.note_opening(fingerprint, {"study": "s", "when": "now"})
    store.write("openings/two/" + "0" * 32 + ".json", sealed({"study": "before notes knew their names"}))
    assert (store.openings("one"), store.openings("two")) == (2, 2)
    copied = sorted(local(store, "openings/one").iterdir())[0]
    shutil.copy(copied, local(store, "openings/two"))
    assert store.openings("two") == 2
    assert [(f.file, f.what) for f in verify(store)] == [
        (f"openings/two/{copied.name}", f"is that of openings/one/{copied.name}")
    ]
    copied.write_bytes(b"?")  # somebody looked, whatever became of the note
    assert store.openings("one") == 2 and len(verify(store)) == 1
