"""Grey pictures: one channel on disk and in a pool, and in all else what three equal ones are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data.inspect.test_check import flip, found

from dermsearch.data.domain import CHEST
from dermsearch.data.drawn.chest import hospital_a
from dermsearch.data.inspect.check import FAILED, OK
from dermsearch.data.inspect.show import caption, tiles
from dermsearch.data.mixed import open_mixed
from dermsearch.data.open import open_cases
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.lookalikes import looks_of
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.shard import as_plane
from dermsearch.data.prepare.version import version
from dermsearch.data.prepare.view import view
from dermsearch.data.store.card import describe
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import FORMAT, GREY, MANIFEST, shard_file
from dermsearch.data.store.pool import CasePool, Look, pictures, together
from dermsearch.data.store.splits import Split
from dermsearch.data.views.augment import plain
from dermsearch.study.data import Data

CPU, SIDE, CASES = torch.device("cpu"), 32, 24
EVERY = np.arange(CASES)


def write(folder: Path, seed: int = 0, grey: tuple[str, ...] = CHEST.grey) -> CaseStore:
    """Drawn radiographs; not `grey`, in three channels, as earlier versions kept them."""
    settings = {"source": "synthetic", "domain": "chest", "seed": seed}
    drawn = hospital_a(CASES, SIDE, seed)
    return write_store(folder, drawn, Split(seed=0), CHEST.labels, settings, CHEST.columns, grey=grey)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    return write(tmp_path_factory.mktemp("grey") / "old", grey=())


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    return write(tmp_path_factory.mktemp("grey") / "new")


def bytes_of(store: CaseStore) -> int:
    """What the pictures take."""
    return sum(store.kept("xray", row).nbytes for row in range(len(store)))


def same(one: CaseStore, other: CaseStore) -> None:
    """To whoever looks at them the stores are one, and so they are to keys."""
    rows = np.arange(len(one))
    assert one.fingerprint == other.fingerprint and len(one) == len(other)
    for a, b in zip(one.pictures("xray", rows)[0], other.pictures("xray", rows)[0], strict=True):
        assert a.shape == b.shape and a.shape[2] == 3 and np.array_equal(a, b)
    where = ["shard", "at"]
    assert one.index.drop(where).equals(other.index.drop(where))


def test_a_store_keeps_one_channel_and_the_fingerprint(old: CaseStore, new: CaseStore) -> None:
    assert bytes_of(new) == CASES * SIDE**2 == bytes_of(old) / 3
    small, large = ((store.folder / shard_file(0)).stat().st_size for store in (new, old))
    assert small < 0.55 * large, "with masks"
    assert new.planes("xray", EVERY)[0].shape == (CASES, SIDE, SIDE, 1) and new.grey == ("xray",)
    same(old, new)
    drawn = np.stack([case.images["xray"] for case in hospital_a(CASES, SIDE, 0)])
    assert np.array_equal(new.pictures("xray", EVERY)[0], drawn)
    assert np.array_equal(new.masks(EVERY)[0], old.masks(EVERY)[0])
    assert "one channel of xray" in "\n".join(describe(new)) and "one channel" not in "\n".join(describe(old))


def test_an_earlier_store_is_read_as_it_is(old: CaseStore, new: CaseStore) -> None:
    """And its format is the one that earlier versions read: only a store that they cannot read has another."""
    told = [json.loads((store.folder / MANIFEST).read_text()) for store in (old, new)]
    assert [each["format"] for each in told] == [FORMAT, GREY] and GREY != FORMAT
    assert "grey" not in told[0] and told[1]["grey"] == ["xray"]
    assert old.grey == () and old.planes("xray", EVERY)[0].shape == (CASES, SIDE, SIDE, 3)


def test_what_the_domain_declares_is_what_built_in_stores_keep(tmp_path: Path) -> None:
    chest = open_cases(Data(source="synthetic", domain="chest", modalities=["xray"], cases=40, size=32), tmp_path)
    skin = open_cases(Data(source="synthetic", cases=40, size=32), tmp_path)
    assert chest.grey == ("xray",) and skin.grey == () and skin.about["format"] == FORMAT
    assert skin.kept("derm", 0).nbytes == 3 * 32 * 32


def test_a_pool_holds_a_third(old: CaseStore, new: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that has just room for one channel of each."""
    monkeypatch.setattr("dermsearch.data.store.pool.room", lambda device: CASES * SIDE**2)
    pools = [CasePool(store, ("xray",), EVERY, CPU, Look(SIDE)) for store in (new, old)]
    for pool in pools:
        pool.where = "device"
    small = pools[0].resident
    assert small is not None and small.pixels.untyped_storage().nbytes() == CASES * SIDE**2
    with pytest.raises(Exception, match="the images take"):
        pools[1].resident  # noqa: B018
    monkeypatch.setattr("dermsearch.data.store.pool.room", lambda device: 3 * CASES * SIDE**2)
    large = pools[1].resident
    assert large is not None and large.pixels.untyped_storage().nbytes() == 3 * CASES * SIDE**2
    units = np.array([3, 0, 7, 7])
    seen = [plain(pool.pixels(units), 24) for pool in pools]
    assert torch.equal(*seen) and seen[0].shape == (4, 3, 24, 24)


def test_a_batch_of_both_kinds_has_colours(old: CaseStore, new: CaseStore) -> None:
    rows = np.arange(3)
    one, three = (pictures(store, "xray", rows, Look(SIDE), CPU) for store in (new, old))
    both = together([one, three])
    assert both.pixels.shape[1] == 3 and torch.equal(both.pixels[:3], both.pixels[3:])
    assert together([one, one]).pixels.shape[1] == 1


def test_jpegs_stay_what_they_were_and_are_read_in_one_channel() -> None:
    """Where three are equal, JPEGs of one are hardly smaller; but a picture is told apart by the bytes of its JPEG."""
    pixels = next(iter(hospital_a(1, 64, 0))).images["xray"]
    plane, before = (as_plane(pixels, (64, 64), encoded=True, grey=grey) for grey in (True, False))
    assert plane == before
    single = as_plane(pixels, (64, 64), grey=True)
    assert len(single.data) == 64 * 64 and single.look == before.look


@pytest.mark.parametrize("copied", [True, False])
def test_mixtures(tmp_path: Path, copied: bool) -> None:
    """Of stores with one channel and with three: three. All are one mixture, to the fingerprint."""
    kinds = {"old": ((), ()), "new": (CHEST.grey, CHEST.grey), "both": (CHEST.grey, ())}
    stores = {}
    for kind, (a, b) in kinds.items():
        parts = [write(tmp_path / kind / name, seed, grey).folder for seed, name, grey in ((0, "a", a), (1, "b", b))]
        mix(parts, tmp_path / kind / "mix", copied=copied)
        stores[kind] = CaseStore(tmp_path / kind / "mix")
    assert {kind: store.grey for kind, store in stores.items()} == {"old": (), "new": ("xray",), "both": ()}
    same(stores["old"], stores["both"])
    same(stores["old"], stores["new"])
    depth = {kind: store.planes("xray", np.arange(9))[0].shape[3] for kind, store in stores.items()}
    assert depth == {"old": 3, "new": 1, "both": 3}
    assert bytes_of(stores["new"]) * 3 == bytes_of(stores["old"])
    assert found(stores["both"].folder)["files"][0] == found(stores["new"].folder)["files"][0] == OK


def test_a_mixture_follows_a_store_that_was_made_anew(tmp_path: Path) -> None:
    """Prepared again, a store keeps one channel; the mixture that shows it was made before."""
    parts = {"a": write(tmp_path / "a", 0, ()), "b": write(tmp_path / "b", 1, ())}
    told = Data(source="mix", mix=["a", "b"])
    before = open_mixed("m", told, parts, tmp_path)
    seen = before.pictures("xray", np.arange(2 * CASES))[0]
    after = open_mixed("m", told, {**parts, "a": write(tmp_path / "again", 0)}, tmp_path)
    assert after.folder == before.folder and after.grey == ()
    assert np.array_equal(after.pictures("xray", np.arange(2 * CASES))[0], seen)
    last = open_mixed("m", told, {"a": write(tmp_path / "a2", 0), "b": write(tmp_path / "b2", 1)}, tmp_path)
    assert last.grey == ("xray",) and np.array_equal(last.pictures("xray", np.arange(2 * CASES))[0], seen)


def test_all_that_reads_pictures_sees_the_same(old: CaseStore, new: CaseStore, tmp_path: Path) -> None:
    assert np.array_equal(tiles(old, "xray", EVERY), tiles(new, "xray", EVERY))
    others = [CaseStore(store.folder) for store in (old, new)]
    for store in others:
        store.about = {**store.about, "looks": 0}  # as one that knows no originals
    assert np.array_equal(*(looks_of(store, "xray", EVERY) for store in others))
    parts = [
        view(store, tmp_path / name, version(store, "finding", ["none", "pneumonia"]))
        for name, store in (("old", old), ("new", new))
    ]
    assert [part.grey for part in parts] == [(), ("xray",)]
    same(*parts)


def test_damage_to_one_channel_is_told_by_its_cases(tmp_path: Path) -> None:
    store = write(tmp_path / "s")
    assert found(store.folder)["files"][0] == OK
    data = (store.folder / shard_file(0)).read_bytes()
    flip(store.folder / shard_file(0), data.index(store.kept("xray", 5).tobytes()) + 40)
    mark, text = found(store.folder)["files"]
    assert mark == FAILED and "1 damaged case: X00005" in text


def test_what_a_card_and_a_sheet_say_of_radiographs(new: CaseStore, tmp_path: Path) -> None:
    """A finding that is there is named once; the splits of a part are nobody's publication."""
    words = [caption(new, row).split(", ")[:-2] for row in range(CASES)]
    finding = new.label("finding")
    assert words == [[new.classes["finding"][f]] for f in finding] and len(np.unique(finding)) == 4
    part = view(new, tmp_path / "part", version(new, "pneumonia", ["absent", "present"]))
    there = [caption(part, row).split(", ")[:-2] for row in range(CASES)]
    assert there == [["pneumonia"] * f for f in part.label("pneumonia")]
    whole, told = ("\n".join(describe(store)) for store in (new, part))
    assert "built-in drawn cases" in whole and "by patient, 70 / 15 / 15 %" in whole
    assert "as in the store that it is a part of" in told and "as published" not in told
