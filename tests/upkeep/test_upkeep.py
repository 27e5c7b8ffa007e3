"""What `dermsearch store list | verify | gc` say of a store and do to it, here and on S3."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest_search import make_study
from s3 import serving
from typer.testing import CliRunner

from dermsearch.cli.store import store_app
from dermsearch.data.open import drop_damaged, open_cases, store_folder
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, PREDICTOR, Part
from dermsearch.results.tables import schema as tables
from dermsearch.storage.files import sealed
from dermsearch.storage.leases import claim_of
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.upkeep.inventory import DAMAGED, curriculum, items, manifests
from dermsearch.upkeep.upkeep import empty, outdated, put_away, repair, unneeded, verify
from dermsearch.upkeep.used import Used, used_by

HOUR = 3600.0
DAY = 24 * HOUR
WEIGHTS = {"w": torch.arange(6.0)}
PARTS = {ENCODERS: Part({}, WEIGHTS)}
# key -> (parent, task); "lost" was made by a study whose results are gone, "left" was killed under way
STAGES = {"r": ("", ""), "a": ("r", "odc"), "ab": ("a", "moco_v2"), "r2": ("", ""), "lost": ("r2", "odc")}
FITS = {"fit-a": ("a", "finetune"), "fit-lost": ("lost", "finetune")}
WORDS: dict[str, str] = {}  # key -> what the tests call it
ROW = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5}
MINE = make_study(data={"cases": 40, "size": 32}).data
OTHERS = make_study(data={"cases": 44, "size": 32}).data


def k(word: str) -> str:
    """The key of what the tests call so."""
    key = hashlib.blake2b(word.encode(), digest_size=16).hexdigest()
    WORDS[key] = word
    return key


def told(protocol: str) -> dict:
    """A judgement."""
    return {"protocol": protocol, "rows": [ROW], "confusions": [], "seconds": 1.0}


def fill(store: StageStore) -> None:
    """Two studies' stages and judgements, and what runs leave behind."""
    for word, (parent, task) in STAGES.items():
        weights = k("used") if word == "r" else k("unused") if word == "r2" else ""
        about = {
            "task": task,
            "parent": parent and k(parent),
            "seed": 0,
            "study": "one",
            "made": "2026-01-02T03:04:05Z",
        }
        store.commit(k(word), PARTS, [{"epoch": 1}], {**about, "weights": weights})
        store.write_judgement(k(f"s-{word}"), told("knn"), k(word))
    for word, (parent, task) in FITS.items():
        about = {"kind": "fit", "task": task, "parent": k(parent)}
        store.commit(k(word), {PREDICTOR: Part({}, WEIGHTS)}, [], about)
        store.write_judgement(k(f"s-{word}"), told("finetune"), k(word))
    store.write_judgement(k("s-other"), told("linear"), k("a"))
    store.write(f"scores/{k('s-old')}.json", b'[{"protocol": "knn", "value": 0.5}]')
    for word in ("used", "unused"):
        store.write_weights(k(word), "resnet10t", PARTS)
    for word in ("a", "failed", "left"):  # of a finished stage: the kill fell between manifest and tidying up
        PartialStage(store, k(word)).save({"learner": WEIGHTS, "history": "[]"})
        store.write_progress(k(word), [{"epoch": 1}])
    store.write(f"stages/{k('half')}/encoders.safetensors", b"half")
    store.write(f"stages/{k('a')}/encoders.safetensors.12345678.part", b"half")
    store.write(f"{TUNE}/trials/notes.json", b"{}")
    claim(store, f"claims/{k('ab')}.json", "gone")
    store.write(f"claims/runs/{k('gone')}.json", b"{}")  # the last sign of life of that run
    store.write("notes-of-my-own.txt", b"hands off")


TUNE = "tune/one-0123456789ab"


def claim(store: StageStore, name: str, run: str) -> None:
    """A run's claim."""
    store.write(name, claim_of(k(run), name))


def tables_of_a_study(folder: Path, weights: bool = True) -> Path:
    """Results that name the root, a, ab and a stage that failed."""
    keys = {"a": ("r", "odc"), "ab": ("a", "moco_v2"), "failed": ("ab", "odc"), "fit-a": ("a", "finetune")}
    stages = [{"key": k(key), "parent": k(of), "task": task, "status": "done"} for key, (of, task) in keys.items()]
    scores = [{"stage": k(key), "protocol": "knn"} for key in ("r", "a", "ab")]
    scores += [{"stage": k("a"), "protocol": "finetune"}]
    for name, rows in {"stages": stages, "scores": scores, "trials": [], "epochs": [], "segments": []}.items():
        tables.write(tables.build(name, rows), folder / "tables" / f"{name}.arrow")
    study = {"name": "one", "data": MINE.model_dump(mode="json")}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    with serving(tmp_path_factory.mktemp("s3") / "log.txt") as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StageStore:
    if request.param == "folder":
        store = StageStore(str(tmp_path / "store"))
    else:
        store = StageStore(request.getfixturevalue("server").uri(f"bucket/{tmp_path.name}"))
    fill(store)
    return store


def names(found: list) -> set[str]:
    return {spelt(item.name) for item in found}


def spelt(name: str) -> str:
    """With the tests' words for keys."""
    return re.sub(r"[0-9a-f]{32}", lambda key: WORDS.get(key[0], key[0]), name)


def test_without_studies_goes_only_what_none_can_need(store: StageStore) -> None:
    later = time.time() + 25 * HOUR
    expected = {"partial/a", "stages/half", "stages/a/encoders.safetensors.12345678.part", TUNE}
    assert names(unneeded(store, None, 24, later)) == {*expected, "claims/ab.json", "claims/runs/gone.json"}
    assert unneeded(store, None, 24) == [], "all of it is fresh: a run may be under way"
    assert unneeded(store, None, 24, time.time() - 1000 * HOUR) == [], "a clock that was set back makes nothing old"


def test_with_studies_what_their_tables_name_stays(store: StageStore, tmp_path: Path) -> None:
    used = used_by([tables_of_a_study(tmp_path / "results" / "deep" / "one").parents[1]])
    for data in (MINE, OTHERS) if store.local else ():
        open_cases(data, store.local / "data")  # type: ignore[operator]
    later = time.time() + 25 * HOUR
    gone = unneeded(store, used, 24, later)
    assert names(gone) == {
        *("stages/lost", "stages/r2", "stages/half", "scores/s-lost.json", "scores/s-r2.json", "scores/s-other.json"),
        *("stages/fit-lost", "scores/s-fit-lost.json"),
        *("weights/unused-resnet10t", "partial/a", "partial/left", TUNE, "claims/ab.json", "claims/runs/gone.json"),
        "stages/a/encoders.safetensors.12345678.part",
        *([f"data/{store_folder(OTHERS, store.local / 'data').name}"] if store.local else []),
    }
    before = {item.name: item.bytes for item in items(store)}
    put_away(store, gone)
    put_away(store, gone[:1])  # two at once
    (trash,) = [item for item in items(store) if item.name.startswith("trash/")]
    assert trash.bytes == sum(item.bytes for item in gone)
    after = {item.name: item.bytes for item in items(store) if item.name != trash.name}
    assert after == {n: b for n, b in before.items() if spelt(n) not in names(gone)}
    assert all(store.manifest(k(key)) for key in ("r", "a", "ab")) and PartialStage(store, k("failed")).load()
    assert store.weights(k("used"), "resnet10t") and store.judgement(k("s-a")) and store.judgement(k("s-fit-a"))
    assert verify(store) == [] and unneeded(store, used, 24, later) == []
    assert outdated(store, 7) == [] == outdated(store, 7, time.time() + 6 * DAY)
    assert outdated(store, 7, time.time() - 100 * DAY) == [], "a clock that was set back makes nothing old"
    store.move(f"{trash.name}/stages/{k('lost')}", f"stages/{k('lost')}")
    assert store.manifest(k("lost")), "whatever went can be moved back"
    empty(store, outdated(store, 7, time.time() + 8 * DAY) * 2)
    assert not store.names("trash")


def test_what_a_stage_grew_from_stays_though_no_table_names_it(store: StageStore) -> None:
    """As where a study began with a stage that another one had trained, whose results are gone."""
    gone = names(unneeded(store, Used(stages={k("ab"): {"one"}}), 24, time.time() + 25 * HOUR))
    assert {"stages/lost", "stages/r2", "weights/unused-resnet10t"} <= gone
    assert not gone & {"stages/ab", "stages/a", "stages/r", "weights/used-resnet10t"}


def test_what_a_living_run_works_on_stays_however_old_it_is(tmp_path: Path) -> None:
    store = StageStore(str(tmp_path / "store"))
    fill(store)
    claim(store, f"claims/{k('left')}.json", "dead")
    claim(store, f"claims/{k('left')}.1-{k('dead')}.json", "alive")
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (time.time() - 100 * HOUR,) * 2)
    store.write(f"claims/runs/{k('alive')}.json", b"{}")
    used = used_by([tables_of_a_study(tmp_path / "results")])
    gone = names(unneeded(store, used, 24))
    assert "partial/a" in gone and not any("left" in name or "alive" in name for name in gone)


def test_results_that_cannot_be_read_delete_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no results of a study in"):
        used_by([tmp_path])
    folder = tables_of_a_study(tmp_path / "one")
    whole = (folder / "tables" / "scores.arrow").read_bytes()
    (folder / "tables" / "scores.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="so nobody can tell what it needs"):
        used_by([tmp_path])
    (folder / "tables" / "scores.arrow").write_bytes(whole)
    (folder / "study.yaml").unlink()
    with pytest.raises(UserError, match="so nobody can tell what it needs"):
        used_by([tmp_path])


def test_damage_is_named_and_moved_away(store: StageStore) -> None:
    assert verify(store) == []
    store.write(f"stages/{k('ab')}/history.json", b"[]")
    store.forget(f"stages/{k('lost')}/encoders.safetensors")
    store.write(name := f"scores/{k('s-a')}.json", (store.get(name) or b"").replace(b"0.5", b"0.9"))
    store.write(f"weights/{k('used')}-resnet10t/encoders.safetensors", b"?")
    store.write(f"partial/{k('left')}/state.pt", b"0" * 100)
    store.write(f"stages/{k('r2')}/manifest.json", b"{}")
    faults = verify(store)
    assert {(spelt(f.file), f.what) for f in faults} == {
        ("stages/ab/history.json", "is damaged"),
        ("stages/lost/encoders.safetensors", "is missing"),
        ("stages/r2/manifest.json", "is damaged"),
        ("scores/s-a.json", "is damaged"),
        ("weights/used-resnet10t/encoders.safetensors", "is damaged"),
        ("partial/left/state.pt", "is damaged"),
    }
    assert len(repair(store, faults)) == 6 and verify(store) == []
    (damaged,) = [item for item in items(store) if item.kind == DAMAGED]
    assert store.get(f"{damaged.name}/stages/{k('ab')}/history.json") == b"[]" and store.manifest(k("ab")) is None
    assert store.judgement(k("s-a")) is None and PartialStage(store, k("left")).load() is None
    assert damaged.name in names(unneeded(store, None, 24, time.time() + 25 * HOUR))


def test_a_damaged_case_store_is_found(tmp_path: Path) -> None:
    store = StageStore(str(tmp_path))
    folder = open_cases(MINE, tmp_path / "data").folder
    assert verify(store) == []
    shard = folder / "images-00000.arrow"
    data = shard.read_bytes()
    shard.write_bytes(data[:-99] + bytes([data[-99] ^ 4]) + data[-98:])
    assert [(f.file, f.what) for f in verify(store)] == [(str(shard.relative_to(tmp_path)), "is damaged")]
    drop_damaged(MINE, tmp_path / "data")  # as every run does, and `verify --repair`
    assert not folder.exists() and open_cases(MINE, tmp_path / "data").folder == folder and verify(store) == []
    drop_damaged(MINE, tmp_path / "data")
    assert shard.read_bytes() == data, "drawn anew, to the bit"
    (folder / "index.arrow").unlink()
    assert [f.what for f in verify(store)] == ["is missing"] and repair(store, verify(store)) and verify(store) == []


def test_the_curriculum_of_a_stage_is_read_from_its_ancestors(tmp_path: Path) -> None:
    store = StageStore(str(tmp_path))
    fill(store)
    known = manifests(store, items(store))
    assert curriculum(k("ab"), known) == "odc > moco_v2" and curriculum(k("r"), known) == "no pre-training"
    assert curriculum(k("fit-a"), known) == "odc + finetune"
    known[k("r")] |= {"parent": k("r"), "task": "odc"}
    assert curriculum(k("r"), known).startswith("? > odc"), "its own parent"
    del known[k("a")]
    assert curriculum(k("ab"), known) == "? > moco_v2"


def test_the_commands(tmp_path: Path) -> None:
    place, run = str(tmp_path / "store"), CliRunner().invoke
    store = StageStore(place)
    fill(store)
    studies = ["--studies", str(tables_of_a_study(tmp_path / "one"))]
    said = run(store_app, ["list", place]).output
    assert "odc > moco_v2" in said and "2026-01-02 03:04:05" in said and "in all" in said
    assert [line.split()[0] for line in said.splitlines() if line.endswith("B") and "stage  " in line] == ["8"]
    assert run(store_app, ["gc", place, *studies]).output == "Nothing to delete.\n"
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (time.time() - 25 * HOUR,) * 2)
    shown = run(store_app, ["gc", place, *studies]).output
    assert "stages/lost" in spelt(shown) and "1.0 days old" in shown and "Nothing was deleted" in shown
    assert store.manifest(k("lost"))
    done = run(store_app, ["gc", place, *studies, "--yes"])
    assert done.exit_code == 0 and "In the trash for 7 days: " in done.output
    assert not store.manifest(k("lost")) and store.manifest(k("ab"))
    assert run(store_app, ["gc", place, *studies, "--yes"]).output == "Nothing to delete.\n"
    done = run(store_app, ["gc", place, "--days", "0", "--yes"])
    assert "goes for good" in done.output and "Deleted: " in done.output and not store.names("trash")
    assert run(store_app, ["verify", place]).output == "Every file is as it was written.\n"
    store.write(f"scores/{k('s-a')}.json", b"{}")
    assert run(store_app, ["verify", place]).exit_code == 1
    assert run(store_app, ["verify", place, "--repair"]).exit_code == 0
    assert run(store_app, ["verify", place]).exit_code == 0
    nowhere = run(store_app, ["list", str(tmp_path / "typo")])
    assert isinstance(nowhere.exception, UserError) and "is not a stage store" in str(nowhere.exception)
    assert not (tmp_path / "typo").exists()


def test_a_store_of_another_version(tmp_path: Path) -> None:
    old = tmp_path / "old"
    StageStore(str(old)).commit("k", PARTS, [], {})
    (old / "store.json").unlink()
    assert StageStore(str(old), create=False).manifest("k") and not (old / "store.json").exists()
    assert StageStore(str(old)).manifest("k") and json.loads((old / "store.json").read_text())["format"] == 3
    (old / "store.json").write_bytes(sealed({"format": 4, "version": "9.1"}))
    for create in (True, False):
        with pytest.raises(UserError, match=r"was written by dermsearch 9\.1 in format 4, and this one reads up to 3"):
            StageStore(str(old), create)


def test_the_state_that_another_version_left_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = PartialStage(StageStore(str(tmp_path)), "k")
    partial.save({"learner": WEIGHTS, "history": "[]"})
    assert partial.load() is not None
    monkeypatch.setattr("dermsearch.storage.stages.__version__", "9.1")
    assert partial.load() is None
