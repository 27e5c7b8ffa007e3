"""What is not the store's own is never moved or deleted: what links lead to, what users put there."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from conftest_search import make_study
from typer.testing import CliRunner

from dermsearch.cli.store import store_app
from dermsearch.data.case import Case
from dermsearch.data.open import open_cases, store_folder
from dermsearch.data.prepare.build import write_store
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.models.encoders import Encoders
from dermsearch.results.tables import schema as tables
from dermsearch.storage.files import sealed
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.upkeep.inventory import items
from dermsearch.upkeep.upkeep import empty, outdated, put_away, repair, unneeded, verify
from dermsearch.upkeep.used import used_by

HOUR, DAY = 3600.0, 86400.0
A, B, C = "a" * 32, "b" * 32, "c" * 32
PARTS = {ENCODERS: Part({}, {"w": torch.ones(2)})}
DATA = make_study(data={"cases": 40, "size": 32}).data
PLACES = {
    **dict.fromkeys(["stages", "segments", "partial"], C), **dict.fromkeys(["scores", "claims"], f"{C}.json"),
    "weights": f"{C}-resnet18", "data": "synthetic-40x32-0123456789ab", "tune": "one-0123456789ab",
    **dict.fromkeys(["damaged", "trash"], "2026-01-02T030405Z-0123ab"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    """With a stage that a study needs and one that none does."""
    store = StageStore(str(tmp_path / "store"))
    for key in (A, B):
        store.commit(key, PARTS, [], {"task": "", "parent": ""})
    return store


def local(store: StageStore, name: str) -> Path:
    assert store.local is not None
    return store.local / name


def results(folder: Path, **study: Any) -> Path:
    """Of a study that needs A."""
    for name in ("stages", "scores", "segments"):
        row = {"key": A, "parent": A, "stage": A, "protocol": "knn", "until": 1, "verdict": ""}
        tables.write(tables.build(name, [row]), folder / "tables" / f"{name}.arrow")
    about = {"name": "one", "data": DATA.model_dump(mode="json"), **study}
    (folder / "study.yaml").write_text(yaml.safe_dump(about))
    return folder


def goes(store: StageStore, folder: Path) -> list:
    """What gc moves, a month later."""
    return unneeded(store, used_by([folder]), 24, time.time() + 30 * DAY)


@pytest.mark.parametrize("folder, name", [*PLACES.items(), ("stages", "x"), ("data", "ham"), ("damaged", "x")])
def test_no_link_is_followed(store: StageStore, tmp_path: Path, folder: str, name: str) -> None:
    outside = tmp_path / "webapp"
    (outside / "deep").mkdir(parents=True)
    for file in ("manifest.json", "state.pt", "history.json", "store.json", "deep/index.html"):
        (outside / file).write_text("mine")
    link = local(store, f"{folder}/{name}")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    going = goes(store, results(tmp_path / "results"))
    assert [i.name for i in going] == [f"stages/{B}"]
    put_away(store, going)
    repair(store, verify(store))
    empty(store, outdated(store, 0, time.time() + DAY))
    assert link.is_symlink() and sum(p.read_text() == "mine" for p in outside.rglob("*") if p.is_file()) == 5
    said = CliRunner().invoke(store_app, ["verify", str(store.local)])
    assert f"{folder}/{name} is a link, which is not followed" in said.output and said.exit_code == 0


def test_a_link_in_a_stage_keeps_it_where_it_is(store: StageStore, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    local(store, f"stages/{B}/encoders.safetensors").unlink()
    local(store, f"stages/{B}/encoders.safetensors").symlink_to(tmp_path / "mine")
    assert goes(store, results(tmp_path / "results")) == []
    local(store, f"stages/{B}/history.json").write_text("?")
    said = CliRunner().invoke(store_app, ["verify", "--repair", str(store.local)])
    assert said.exit_code == 1 and f"Left alone, since there are links in them: stages/{B}" in said.output
    assert local(store, f"stages/{B}/encoders.safetensors").is_symlink()


@pytest.mark.parametrize("folder", ["trash", "damaged"])
def test_nothing_is_moved_out_of_the_store(store: StageStore, tmp_path: Path, folder: str) -> None:
    (tmp_path / "outside").mkdir()
    local(store, folder).symlink_to(tmp_path / "outside")
    local(store, f"stages/{A}/history.json").write_text("?")
    with pytest.raises(UserError, match="is a link, and nothing is moved through one"):
        put_away(store, goes(store, results(tmp_path / "results"))) if folder == "trash" else repair(
            store, verify(store)
        )
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("folder", ["stages", "segments"])
def test_stages_that_are_not_seen_stop_it(store: StageStore, tmp_path: Path, folder: str) -> None:
    outside = tmp_path / "large-disk"
    local(store, folder).mkdir(exist_ok=True)
    shutil.move(local(store, folder), outside)
    local(store, folder).symlink_to(outside)
    with pytest.raises(UserError, match=f"'{folder}' in the store is a link: what is in it is not seen"):
        goes(store, results(tmp_path / "results"))


def test_in_the_trash_a_link_goes_and_what_it_points_to_stays(store: StageStore, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    put_away(store, goes(store, results(tmp_path / "results")))
    (trash,) = outdated(store, 0, time.time() + DAY)
    local(store, f"{trash.name}/link").symlink_to(tmp_path)
    empty(store, [trash])
    assert not local(store, trash.name).exists() and (tmp_path / "mine").read_text() == "mine"


def prepared(folder: Path) -> Path:
    """A case store of a user's own."""
    images = {"derm": np.zeros((32, 32, 3), np.uint8)}
    cases = [Case(f"c{i}", f"l{i}", f"p{i}", images, {"diagnosis": 0}) for i in range(3)]
    write_store(folder, cases, {c.case: "train" for c in cases}, {"diagnosis": ("a", "b")}, {"source": "folder"})
    return folder


@pytest.mark.parametrize("name", ["ham", "ham-0123456789ab", "synthetic-3x8-0123456789ab"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_prepared_case_store_is_nobodys_to_delete(
    store: StageStore, tmp_path: Path, name: str, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(local(store, f"data/{name}"))
    monkeypatch.chdir(tmp_path)
    path = str(folder.relative_to(tmp_path)) if relative else str(folder)
    for data in (DATA, make_study(data={"source": "store", "path": path, "size": 32}).data):
        assert [i.name for i in goes(store, results(tmp_path / "r", data=data.model_dump(mode="json")))] == [
            f"stages/{B}"
        ]


def test_cases_that_the_store_drew_or_copied_go(store: StageStore, tmp_path: Path) -> None:
    other = make_study(data={"cases": 44, "size": 32}).data
    for data in (DATA, other):
        open_cases(data, local(store, "data"))
    copy = prepared(tmp_path / "copied")
    fingerprint = yaml.safe_load((copy / "store.json").read_text())["fingerprint"]
    shutil.copytree(copy, local(store, f"data/ham-0123456789ab/{fingerprint}"))
    shutil.copytree(copy, local(store, "data/mine-0123456789ab/kept"))
    local(store, "data/.synthetic-44x32-0123456789ab.x7").mkdir()
    drawn = store_folder(other, local(store, "data"))
    expected = {f"data/{drawn.name}", "data/ham-0123456789ab", "data/.synthetic-44x32-0123456789ab.x7", f"stages/{B}"}
    assert {i.name for i in goes(store, results(tmp_path / "results"))} == expected
    (drawn / "store.json").unlink()
    assert {i.name for i in goes(store, results(tmp_path / "results"))} == expected, "half of what was drawn, too"


@pytest.mark.parametrize("name", [
    "stages/webapp/index.html", f"stages/{C}/notes.txt", f"partial/{C}/mine", "scores/mine.json", "tune/mine/x",
    "damaged/photos/x.jpg", "trash/2026/x", "claims/mine.json", "weights/mine/x", "data/ham/x", "mine/x.12345678.part",
    "preparing/mine", f"segments/{C}x/manifest.json",
])  # fmt: skip
def test_what_the_store_has_not_made_stays(store: StageStore, tmp_path: Path, name: str) -> None:
    store.write(name, b"mine")
    assert [i.name for i in goes(store, results(tmp_path / "results"))] == [f"stages/{B}"]
    assert outdated(store, 0, time.time() + DAY) == []


def test_of_a_damaged_stage_with_notes_of_ones_own_the_notes_stay(store: StageStore) -> None:
    store.write(f"stages/{A}/notes.txt", b"mine")
    store.write(f"stages/{A}/history.json", b"?")
    assert len(repair(store, verify(store))) == 1
    assert store.names(f"stages/{A}") == [f"stages/{A}/notes.txt"] and verify(store) == []


# What a study needs ----------------------------------------------------------------------------------------


def deep(folder: Path) -> None:
    (folder / "study.yaml").write_text("a: " + "[" * 10_000)


def bomb(folder: Path) -> None:
    (folder / "study.yaml").write_text("name: one\ndata: &d\n  deeper: *d\n")


def flipped(folder: Path, table: str = "stages") -> None:
    path = folder / "tables" / f"{table}.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)


UNREADABLE: dict[str, Any] = {
    "renamed": lambda f: (f / "tables/stages.arrow").rename(f / "tables/old.arrow"),
    "deleted": lambda f: shutil.rmtree(f / "tables"),
    "begun": lambda f: (shutil.rmtree(f / "tables"), (f / "tables").mkdir()),
    "no scores": lambda f: (f / "tables/scores.arrow").unlink(),
    "no segments": lambda f: (
        (f / "tables/segments.arrow").unlink(),
        tables.write(tables.build("judgements", []), f / "tables/judgements.arrow"),
    ),
    "cut": lambda f: (f / "tables/stages.arrow").write_bytes(b"ARROW1"),
    "empty": lambda f: (f / "tables/scores.arrow").write_bytes(b""),
    "flipped": flipped,
    "flipped segments": lambda f: flipped(f, "segments"),
    "no study": lambda f: (f / "study.yaml").unlink(),
    "deep": deep,
    "holds itself": bomb,
    "a list as name": lambda f: results(f, name=["one"]),
    "a list": lambda f: (f / "study.yaml").write_text("[1]"),
    "no text": lambda f: (f / "study.yaml").write_bytes(b"\xff\x00"),
    "no data": lambda f: results(f, data=None),
    "odd data": lambda f: results(f, data={"x": 1}),
    "a folder": lambda f: ((f / "study.yaml").unlink(), (f / "study.yaml").mkdir()),
    "empty text": lambda f: (f / "study.yaml").write_text(""),
}


@pytest.mark.parametrize(("what", "linked"), [*((w, False) for w in UNREADABLE), ("a list", True), ("a folder", True)])
def test_a_study_that_cannot_say_what_it_needs_stops_it(
    store: StageStore, tmp_path: Path, what: str, linked: bool
) -> None:
    folder = results(tmp_path / "results" / "one")
    results(tmp_path / "results" / "sound")
    UNREADABLE[what](folder)
    if linked:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"^--studies: [^\n]*$"):
        goes(store, tmp_path / "results")


def test_studies_behind_links_count_and_circles_end(store: StageStore, tmp_path: Path) -> None:
    results(tmp_path / "elsewhere" / "deep")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "results")
    assert used_by([tmp_path / "results"]).stages == {A: {"one"}}


def test_a_link_to_results_that_are_gone_stops_it(store: StageStore, tmp_path: Path) -> None:
    results(tmp_path / "results" / "sound")
    (tmp_path / "results" / "one").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=r"results/one' cannot be read \(No such file or directory\), so nobody can"):
        goes(store, tmp_path / "results")


# Verify ----------------------------------------------------------------------------------------------------


def small() -> dict[str, Part]:
    """Encoders of which is known what they should be."""
    return {ENCODERS: Encoders.random("test_resnet", ("derm",), "shared", 0).part()}


def changed(**change: Any) -> dict[str, Part]:
    """Weights that are whole and wrong."""
    part = small()[ENCODERS]
    return {ENCODERS: Part(part.config, {n: w for n, w in {**part.state, **change}.items() if w is not None})}


FIRST = next(iter(small()[ENCODERS].state))
SHAPE = small()[ENCODERS].state[FIRST].shape


@pytest.mark.parametrize("parts, told", [
    (small(), None),
    (changed(**{FIRST: torch.ones(3)}), "in other shapes"),
    (changed(**{FIRST: None}), "it lacks"),
    (changed(more=torch.ones(3)), "it has besides more"),
    (changed(**{FIRST: torch.full(SHAPE, torch.nan)}), "not all numbers are finite"),
    (changed(**{FIRST: torch.ones(SHAPE, dtype=torch.float16)}), "in other types"),
    ({ENCODERS: Part({}, {"w": torch.tensor([torch.inf])})}, "not all numbers are finite"),
])  # fmt: skip
def test_encoders_are_loaded(store: StageStore, parts: dict[str, Part], told: str | None) -> None:
    store.commit(C, parts, [], {})
    faults = [(f.file, f.what) for f in verify(store)]
    if told is None:
        assert faults == []
    else:
        ((file, what),) = faults
        assert file == f"stages/{C}/encoders.safetensors" and what.startswith("cannot be loaded: ") and told in what


def test_copies_under_other_names_are_found(store: StageStore) -> None:
    row = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5}
    store.write_judgement(A, {"rows": [row], "confusions": [], "seconds": 1.0}, A)
    PartialStage(store, A).save({"learner": {}, "history": "[]"})
    store.commit_segment(A, {}, {})
    store.write_weights(A, "resnet18", PARTS)
    ends = {"stages": "", "segments": "", "scores": ".json", "partial": "", "weights": "-resnet18"}
    names = [f"{kind}/{A}{end}" for kind, end in ends.items()]
    for name in names:
        path, copy = local(store, name), local(store, name.replace(A, C))
        shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    faults = verify(store)
    assert {f.item.name for f in faults} == {name.replace(A, C) for name in names}
    assert all(f.what.startswith("is that of ") and A in f.what for f in faults) and len(faults) == 5


@pytest.mark.parametrize("name, told", [
    (f"stages/{A}/manifest.json", "is that of|names no files"),
    (f"scores/{C}.json", "is no judgement"),
])  # fmt: skip
def test_sealed_nonsense_is_found(store: StageStore, name: str, told: str) -> None:
    for content in ({"name": name, "files": None}, {"name": name}, {"rows": []}, {"name": name, "rows": [{}]}):
        store.write(name, sealed(content))
        (fault,) = verify(store)
        assert fault.file == name and fault.what in ("names no files", "is no judgement")


@pytest.mark.parametrize("name", [f"scores/{C}.json", f"partial/{C}/state.pt", f"stages/{C}/manifest.json"])
@pytest.mark.parametrize("wrong", ["folder", "pipe"])
def test_what_is_no_file_is_named_and_moved(store: StageStore, name: str, wrong: str) -> None:
    path = local(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path / "deep").mkdir(parents=True) if wrong == "folder" else os.mkfifo(path)
    faults = verify(store)
    assert (name, "is a folder" if wrong == "folder" else "is neither a file nor a folder") in [
        (f.file, f.what) for f in faults
    ]
    repair(store, faults)
    assert not path.exists() and verify(store) == []


def test_what_a_judgement_predicted_goes_with_it(store: StageStore, tmp_path: Path) -> None:
    row = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5}
    said = pa.table({"case": ["a"]})
    for key in (A, B):
        store.write_judgement(key, {"rows": [row], "confusions": [], "seconds": 1.0}, key, said)
    store.write_judgement(A, {"protocol": "knn", "rows": [row], "confusions": [], "seconds": 1.0}, A, said)
    put_away(store, goes(store, results(tmp_path / "results")))
    assert store.names("scores") == [f"scores/{A}.arrow", f"scores/{A}.json"]
    store.write(f"scores/{A}.arrow", b"?")
    faults = verify(store)
    assert [(f.file, f.what) for f in faults] == [(f"scores/{A}.arrow", "is damaged")]
    repair(store, faults)
    assert store.names("scores") == [] and len(store.names("damaged")) == 2


def test_a_file_where_a_folder_belongs_is_named(store: StageStore) -> None:
    store.write(f"stages/{C}", b"x")
    assert [(f.file, f.what) for f in verify(store)] == [(f"stages/{C}", "is a file")]


def test_a_state_that_does_not_load_is_found(store: StageStore) -> None:
    store.write(f"partial/{C}/state.pt", b"0" * 16)
    assert [f.what for f in verify(store)] == ["is damaged"]


def test_names_that_are_no_text_are_printed(store: StageStore) -> None:
    local(store, os.fsdecode(b"stages/\xff\x1b[31m")).symlink_to("/")
    said = CliRunner().invoke(store_app, ["verify", str(store.local)])
    assert said.exit_code == 0 and "stages/??[31m is a link" in said.output
    assert any(not i.own for i in items(store))


def test_what_cannot_be_read_is_named(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read = StageStore.read

    def refuse(self: StageStore, name: str) -> bytes:
        if name.startswith(f"stages/{A}"):
            raise PermissionError(13, "Permission denied", name)
        return read(self, name)

    monkeypatch.setattr(StageStore, "read", refuse)
    (fault,) = verify(store)
    assert fault.file == f"stages/{A}" and "cannot be read" in fault.what and "Permission denied" in fault.what
