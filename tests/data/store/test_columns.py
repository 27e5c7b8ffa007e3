"""Metadata as inputs: scaled by the training cases alone, with a mask, and no column that tells the class."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.inspect.test_check import make, rows

from dermsearch.data.case import METADATA, Case, Column, columns
from dermsearch.data.inspect.check import check
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.mix import mix
from dermsearch.data.store.case_store import CaseStore, check_columns
from dermsearch.data.store.layout import MANIFEST, of_itself
from dermsearch.data.store.pool import CasePool, PairedPool
from dermsearch.errors import UserError

AGES = [30.0, 40.0, None, 50.0, 90.0, 10.0, None, 44.0]
SITES = ["back", None, "arm", "back", "nose", "arm", "back", "arm"]
SPLIT = ["train", "train", "train", "train", "val", "val", "test", "test"]
DECLARED = (*columns("patient", numbers=["age"]), *columns("lesion", words=["site"]))


def cases() -> list[Case]:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    return [
        Case(
            f"c{i}", "", "", {"derm": pixels[i]}, {"diagnosis": i % 2}, {"age": AGES[i], "site": SITES[i], "note": "x"}
        )
        for i in range(8)
    ]


def write(folder: Path, written: list[Case], declared: tuple[Column, ...] = DECLARED) -> CaseStore:
    split = {case.case: SPLIT[i] for i, case in enumerate(written)}
    return write_store(folder, written, split, {"diagnosis": ("a", "b")}, {"source": "test"}, declared)


def test_the_training_cases_alone_say_how_values_are_told(tmp_path):
    store = write(tmp_path / "s", cases())
    assert list(store.columns) == ["age", "site"] and store.about["metadata"] == ["age", "site", "note"]
    age, site = store.columns.values()
    assert (age.kind, age.level, age.mean, age.vocabulary) == ("number", "patient", 40.0, ())
    assert age.spread == pytest.approx(math.sqrt(200 / 3), rel=1e-12)
    assert (site.kind, site.level, site.vocabulary) == ("word", "lesion", ("arm", "back"))
    assert CaseStore(store.folder).columns == store.columns


def test_known_numbers_in_spreads_from_their_mean(tmp_path):
    """slimp.md 4.5: of the training cases, the spread that of all of them and not of a sample."""
    ages, pixels = [30.0, 50.0, None, 70.0, 40.0], np.zeros((16, 16, 3), np.uint8)
    written = [
        Case(f"c{i}", "", "", {"derm": pixels + i}, {"diagnosis": i % 2}, {"age": a}) for i, a in enumerate(ages)
    ]
    split = {case.case: "train" for case in written}
    declared = columns("patient", numbers=["age"])
    store = write_store(tmp_path / "s", written, split, {"diagnosis": ("a", "b")}, {"source": "test"}, declared)
    assert store.columns["age"].mean == 47.5 and store.columns["age"].spread == pytest.approx(14.790199, abs=1e-6)
    table = store.table(["age"], np.arange(5))
    assert table.values[:, 0] == pytest.approx([-1.183216, 0.169031, 0, 1.521278, -0.507093], abs=1e-6)
    assert table.known[:, 0].tolist() == [True, True, False, True, True]


def test_a_table_is_of_the_asked_columns_and_rows(tmp_path):
    store = write(tmp_path / "s", cases())
    table = store.table(["site", "age"], np.array([4, 0, 1, 2, 3, 0]))
    assert [column.name for column in table.columns] == ["site", "age"] and table.columns[1] == store.columns["age"]
    assert table.values.dtype == np.float32 and table.known.dtype == bool
    assert table.known.tolist() == [
        [False, True],
        [True, True],
        [False, True],
        [True, False],
        [True, True],
        [True, True],
    ]
    assert table.values[:, 0].tolist() == [0, 1, 0, 0, 1, 1]  # a nose, which no training case has, is not known
    spread = store.columns["age"].spread
    wanted = [50 / spread, -10 / spread, 0, 0, 10 / spread, -10 / spread]
    assert table.values[:, 1] == pytest.approx(wanted, rel=1e-6)
    none = store.table([], np.arange(3))
    assert none.values.shape == none.known.shape == (3, 0)


def test_nothing_known_and_nothing_different(tmp_path):
    written = cases()
    for case in written:
        case.metadata = {"age": None, "site": None, "same": 7.0, "odd": float("nan")}
    declared = (*DECLARED, *columns("lesion", numbers=["same", "odd", "absent"]))
    store = write(tmp_path / "s", written, declared)
    assert list(store.columns) == ["age", "site", "same", "odd"]
    assert store.columns["site"].vocabulary == () and store.columns["age"].mean == 0
    table = store.table(["age", "site", "same", "odd"], np.arange(8))
    assert not table.values.any() and table.known.tolist() == [[False, False, True, False]] * 8


def test_pools_pass_metadata_on(tmp_path):
    written = cases()
    for case in written[1:3]:
        case.images["clinic"] = case.images["derm"]
    store, device = write(tmp_path / "s", written), torch.device("cpu")
    everyone = np.arange(8)[::-1]
    pool = CasePool(store, ("derm", "clinic"), everyone, device)
    units = np.array([0, 5, 6, 9])
    assert np.array_equal(pool.table(["age"], units).values, store.table(["age"], pool.rows[units]).values)
    paired = PairedPool(store, "clinic", everyone, device, among=("derm",))
    own = store.table(["age", "site"], everyone[units[:3]])
    assert np.array_equal(paired.table(["age", "site"], units[:3]).values, own.values)  # not those of a stand-in


def test_what_is_no_input_is_refused_by_name(tmp_path):
    folder = make(tmp_path / "s", rows(8), columns=DECLARED[:1], about={"denied": {"dx_type": "it tells the class"}})
    store = CaseStore(folder)
    check_columns(store, ["age"])
    for name, why in {
        "dx_type": "data.metadata: 'dx_type' is no input: it tells the class$",
        "agee": "data.metadata: 'agee' is no metadata of .*; did you mean 'age'",
    }.items():
        with pytest.raises(UserError, match=why):
            check_columns(store, ["age", name])
        with pytest.raises(UserError, match=why):
            store.table([name], np.arange(2))
    kept = write(tmp_path / "kept", cases())
    with pytest.raises(UserError, match=r"'note' is kept in .*kept, but is no input; choose from: age, site$"):
        kept.table(["note"], np.arange(2))


def test_what_training_rows_say_is_in_the_fingerprint_and_so_is_what_was_declared(tmp_path):
    """Names that all data sets share are not told, so that stores keep the fingerprint that they had before."""
    plain = write(tmp_path / "plain", cases(), ()).fingerprint
    shared = tuple(METADATA[name] for name in ("age", "site"))
    assert shared == DECLARED and write(tmp_path / "shared", cases()).fingerprint == plain
    found = {plain}
    for what, declared in {
        "kind": (replace(shared[0], kind="word"), shared[1]),
        "level": (shared[0], replace(shared[1], level="patient")),
        "own": (*shared, Column("note", "word", "lesion")),
    }.items():
        found.add(write(tmp_path / what, cases(), declared).fingerprint)
    older = cases()
    older[0].metadata["age"] = 31.0
    found.add(write(tmp_path / "older", older).fingerprint)
    assert len(found) == 5


def test_a_check_sees_columns_that_are_not_of_the_index(tmp_path):
    folder = make(tmp_path / "s", rows(12), columns=(*DECLARED[:1], Column("note", "word", "lesion")))
    assert not check(folder).failed
    store = CaseStore(folder)
    odd = {**store.about, "columns": [{**store.about["columns"][0], "mean": 1.0}]}
    odd["checksum"] = of_itself(odd)
    (folder / MANIFEST).write_text(json.dumps(odd))
    assert any("columns" in text for mark, _, text in check(folder).found if mark == "FAILED")


def test_a_mix_keeps_what_its_stores_agree_on(tmp_path):
    first = make(tmp_path / "a", rows(12), columns=DECLARED[:1])
    second = [(replace(r, metadata={"age": 70.0 + i, "site": "arm"}), x) for i, (r, x) in enumerate(rows(12, 100))]
    other = make(tmp_path / "b", second, columns=DECLARED, about={"denied": {"qc": "of a reason"}})
    mix([first, other], tmp_path / "m")
    store = CaseStore(tmp_path / "m")
    assert list(store.columns) == ["age", "site"] and store.denied == {"qc": "of a reason"}
    assert not check(tmp_path / "m").failed
    words = make(tmp_path / "c", rows(12, 200), columns=(Column("age", "word", "patient"),))
    mix([first, words], tmp_path / "n")
    assert CaseStore(tmp_path / "n").columns == {}
    denied = make(tmp_path / "d", rows(12, 300), about={"denied": {"age": "of a reason"}})
    mix([first, denied], tmp_path / "o")
    with pytest.raises(UserError, match="'age' is no input: of a reason"):
        check_columns(CaseStore(tmp_path / "o"), ["age"])
