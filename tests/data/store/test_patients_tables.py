"""Patients' tables, tables in another store's columns, and who is whose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dermsearch.data.case import Case, Column, column_of, columns
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import Table, of_patients, onto
from dermsearch.data.store.pool import CasePool, PairedPool

AGE = Column("age", "number", "patient", mean=50.0, spread=10.0)
SITE = Column("site", "word", "lesion", ("arm", "back", "leg"))


def table(*rows: tuple[float | None, float | None]) -> Table:
    known = np.array([[x is not None for x in row] for row in rows])
    return Table((AGE, SITE), np.array([[x or 0.0 for x in row] for row in rows], np.float32), known)


def test_a_number_is_the_median_and_a_word_the_most_frequent() -> None:
    told = table((1, 2), (3, 0), (9, 2), (4, 1), (None, 0), (2, None), (None, None), (7, 1))
    patients, people = of_patients(told, np.array([5, 5, 5, 2, 2, 2, 9, -1]))
    assert patients.tolist() == [2, 5, 9]
    assert people.values.tolist() == [[3, 0], [3, 2], [0, 0]]  # of equals the first of the vocabulary
    assert people.known.tolist() == [[True, True], [True, True], [False, False]]
    nobody, empty = of_patients(told, np.full(8, -1))
    assert not len(nobody) and empty.values.shape == (0, 2)


def test_a_table_in_other_columns() -> None:
    told = table((1.0, 1), (None, 2), (-2.0, None))
    wanted = (
        Column("site", "word", "lesion", ("back", "foot")),
        Column("size", "number", "lesion"),
        Column("age", "number", "patient", mean=40.0, spread=20.0),
    )
    found = onto(told, wanted)
    assert found.columns == wanted
    assert found.known.tolist() == [[True, False, True], [False, False, False], [False, False, True]]
    np.testing.assert_allclose(found.values[:, 2], [1.0, 0.0, -0.5])  # 60 and 30 years
    assert found.values[:, :2].tolist() == [[0, 0]] * 3
    same = onto(told, told.columns)
    assert np.array_equal(same.values, told.values) and np.array_equal(same.known, told.known)
    assert not onto(told, (replace(SITE, kind="number"),)).known.any()


def test_a_column_reads_as_it_was_told() -> None:
    assert column_of({"name": "site", "kind": "word", "level": "lesion", "vocabulary": ["a"]}).vocabulary == ("a",)


WHO = ["p1", "p1", "", "p2", "p2", "", "p1", "p3"]
WHICH = ["a", "a", "x", "a", "", "x", "b", "b"]
AGES = [30.0, 50.0, None, 70.0, 40.0, 1.0, 90.0, 2.0]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    images = [{"derm": x} | ({"clinic": x} if i > 1 else {}) for i, x in enumerate(pixels)]
    cases = [Case(f"c{i}", WHICH[i], WHO[i], images[i], {}, {"age": AGES[i]}) for i in range(8)]
    folder: Path = tmp_path_factory.mktemp("data") / "store"
    split = {c.case: "val" if i == 6 else "train" for i, c in enumerate(cases)}
    return write_store(folder, cases, split, {}, {"source": "test"}, columns("patient", ["age"]))


def test_patients_and_lesions_of_a_store(store: CaseStore) -> None:
    who = store.patients()
    assert (who < 0).tolist() == [not p for p in WHO] and who[0] == who[1] == who[6] != who[3] == who[4]
    lesion = store.lesions()
    assert lesion[0] == lesion[1] and lesion[2] == lesion[5]
    assert len(set(lesion.tolist())) == 6  # two patients use one id; one case tells none


def test_a_pool_tells_what_its_own_cases_know(store: CaseStore) -> None:
    device, train = torch.device("cpu"), store.split("train")
    one, everyone = (CasePool(store, ("derm",), rows, device) for rows in (train, np.arange(8)))
    paired = PairedPool(store, "clinic", train, device, among=("derm",))
    who = store.patients()
    spread = store.columns["age"].spread
    for pool, expected in ((one, 40.0), (everyone, 50.0), (paired, 40.0)):  # the last visit is not for training
        people = pool.people(["age"], np.array([who[3], who[0]]))
        years = people.values[:, 0] * spread + store.columns["age"].mean
        np.testing.assert_allclose(years, [55.0, expected], rtol=1e-5)
    assert np.array_equal(paired.patients(np.arange(3)), who[train[:3]])
    assert np.array_equal(paired.lesions(np.arange(3)), store.lesions()[train[:3]])
    assert paired.rows[0] != 0 and paired.cases[0] == 0  # another's image stands in, and not another's table
    assert np.array_equal(paired.table(["age"], np.arange(3)).values, store.table(["age"], train[:3]).values)
