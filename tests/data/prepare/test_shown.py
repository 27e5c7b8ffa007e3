"""A study's mixture shows the images of its stores where they lie: the same cases as a copy, to the fingerprint."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.inspect.test_check import flip, found, make, noise, rows

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.inspect.check import FAILED, OK, check
from dermsearch.data.mixed import mixed_folder, open_mixed
from dermsearch.data.open import fetch
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.mix import mix
from dermsearch.data.store.card import describe
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import INDEX, MANIFEST, QUARANTINE, of_itself
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError
from dermsearch.study.data import Data


def two(folder: Path, encoded: bool = False) -> list[Path]:
    """One store of both modalities, one of clinical images alone, each in several shards."""
    both = [
        (replace(r, images={"derm": f"{i}d", "clinic": f"{i}c"}), {**x, "clinic": noise(900 + i)})
        for i, (r, x) in enumerate(rows(20))
    ]
    alone = [
        (replace(r, images={"clinic": r.images["derm"]}, metadata={"site": "back"}), {"clinic": x["derm"]})
        for r, x in rows(30, 100)
    ]
    return [make(folder / "a", both, encoded=encoded), make(folder / "b", alone, encoded=encoded)]


def same(one: CaseStore, other: CaseStore) -> None:
    """The same cases: all that the index tells but where images lie, and the images."""
    where = ["shard", "at"]
    assert one.fingerprint == other.fingerprint and one.index.drop(where).equals(other.index.drop(where))
    assert (one.classes, one.columns, one.settings) == (other.classes, other.columns, other.settings)
    for modality in one.modalities:
        for a, b in zip(*(store.pictures(modality, np.arange(len(one))) for store in (one, other)), strict=True):
            assert np.array_equal(a, b)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoded", [False, True])
def test_it_is_the_copy_without_the_images(tmp_path: Path, encoded: bool) -> None:
    stores = two(tmp_path, encoded)
    judged = [make(tmp_path / "j", rows(3, 100), encoded=encoded), make(tmp_path / "k", rows(2, 6), encoded=encoded)]
    for name, copied in (("copy", True), ("m", False)):
        mix(stores, tmp_path / name, judged, weights=[2, 1], copied=copied)
    copy, shown = CaseStore(tmp_path / "copy"), CaseStore(tmp_path / "m")
    same(copy, shown)
    assert len(shown) == 47 and (shown.has("clinic") & ~shown.has("derm")).sum() == 27 + 2, "some are left out"
    assert sorted(p.name for p in shown.folder.iterdir()) == sorted(["README.md", INDEX, QUARANTINE, MANIFEST])
    assert [part.folder for part in shown.parts] == stores and not copy.parts
    assert not check(shown.folder).failed and "in 2 stores that it shows" in "\n".join(describe(shown))


def test_masks_are_shown_too(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        write_store(tmp_path / name, synthetic(12, 32, seed), Split("patient"), SEVEN_POINT, {"source": name})
    for name, copied in (("copy", True), ("m", False)):
        mix([tmp_path / "a", tmp_path / "b"], tmp_path / name, copied=copied)
    copy, shown = CaseStore(tmp_path / "copy"), CaseStore(tmp_path / "m")
    same(copy, shown)
    assert np.array_equal(copy.masks(np.arange(24))[0], shown.masks(np.arange(24))[0])


def test_a_mixture_of_mixtures_shows_what_they_show(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    mix([a], tmp_path / "n", copied=False)
    for name, copied in (("copy", True), ("m", False)):
        mix([tmp_path / "n", b], tmp_path / name, copied=copied)
    same(CaseStore(tmp_path / "copy"), CaseStore(tmp_path / "m"))


def test_a_store_that_was_made_anew_in_other_shards_is_shown_as_before(tmp_path: Path) -> None:
    a = make(tmp_path / "a", rows(20))
    mix([a], tmp_path / "m", copied=False)
    mix([a], tmp_path / "copy")
    shutil.rmtree(a)
    make(a, rows(20), shard=3)
    same(CaseStore(tmp_path / "copy"), CaseStore(tmp_path / "m"))


def test_what_lies_beside_it_may_move_with_it(tmp_path: Path) -> None:
    inside, apart = two(tmp_path / "cache")[0], two(tmp_path / "apart")[1]
    mix([inside, apart], tmp_path / "cache" / "m", copied=False)
    (tmp_path / "cache").rename(tmp_path / "moved")
    shown = CaseStore(tmp_path / "moved" / "m")
    assert [part.folder for part in shown.parts] == [tmp_path / "moved" / "a", apart]


def test_a_part_that_is_gone_or_another_is_said(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    mix([a, b], tmp_path / "m", copied=False)
    b.rename(tmp_path / "c")
    said = r"m: is a mixture, and a store whose images it shows is not where it was: .*b: is not a case store"
    with pytest.raises(UserError, match=said):
        CaseStore(tmp_path / "m")
    assert found(tmp_path / "m")["index"][0] == FAILED
    make(b, rows(30, 100))
    with pytest.raises(UserError, match="b holds other cases now; put it back"):
        CaseStore(tmp_path / "m")


def test_a_mixture_that_holds_itself_is_refused(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    mix([a, b], tmp_path / "m", copied=False)
    (tmp_path / "link").symlink_to("m")
    about = json.loads((tmp_path / "m" / MANIFEST).read_text())
    for way in (".", "../m", "../link"):
        about["parts"][0]["path"] = way
        about["checksum"] = of_itself(about)
        (tmp_path / "m" / MANIFEST).write_text(json.dumps(about))
        with pytest.raises(UserError, match="is a mixture that holds itself"):
            CaseStore(tmp_path / "m")


def test_a_damaged_part_is_found_and_named(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    mix([a, b], tmp_path / "m", copied=False)
    assert found(tmp_path / "m")["part"][0] == OK
    flip(b / "images-00001.arrow", (b / "images-00001.arrow").read_bytes().index(rows(30, 100)[9][1]["derm"].tobytes()))
    report = check(tmp_path / "m")
    assert report.failed and f"{b}: 1 of 6 files not as written: images-00001.arrow is damaged" in " ".join(
        answer for _, _, answer in report.found
    )
    with pytest.raises(UserError, match=r"b: images-00001\.arrow is missing or damaged"):
        CaseStore(tmp_path / "m").pictures("clinic", np.arange(50))


def test_other_machines_are_not_given_a_store_without_images(tmp_path: Path) -> None:
    mix(two(tmp_path), tmp_path / "m", copied=False)
    with pytest.raises(UserError, match="is a mixture of a study and has no images of its own"):
        fetch(f"file://{tmp_path}/m", tmp_path / "cache")


MIXED = Data(source="mix", mix=("one", "other"), size=32)


def test_a_study_finds_its_stores_where_they_are_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its workers, which are told of the mixture alone and work in other folders, find them too."""
    two(tmp_path)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    def opened(*places: str) -> CaseStore:
        parts = dict(zip(MIXED.mix, map(CaseStore, places), strict=True))
        return open_mixed("pool", MIXED, parts, Path("cache"), said.append)

    first = opened("a", "b")
    (tmp_path / "deep").mkdir()
    (tmp_path / "b").rename(tmp_path / "deep" / "b")
    assert opened("a", "deep/b").folder == first.folder and len(said) == 1, "nothing is mixed again"
    monkeypatch.chdir("/")
    there = CaseStore(tmp_path / first.folder)
    assert there.fingerprint == first.fingerprint
    assert [part.folder for part in there.parts] == [tmp_path / "a", tmp_path / "deep" / "b"]
    assert len(there.pictures("clinic", np.arange(50))[0]) == 50
    assert [p.name for p in there.folder.iterdir() if p.name.startswith(".")] == []


def test_a_copy_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    parts = dict(zip(MIXED.mix, map(CaseStore, two(tmp_path)), strict=True))
    folder = mixed_folder(MIXED, parts, tmp_path / "cache")
    mix([part.folder for part in parts.values()], folder)
    before = (folder / MANIFEST).read_bytes()
    store = open_mixed("pool", MIXED, parts, tmp_path / "cache")
    assert not store.parts and (folder / MANIFEST).read_bytes() == before
    assert len(store.pictures("clinic", np.arange(len(store)))[0]) == 50
