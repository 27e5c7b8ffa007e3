"""Retrieval against numbers made by hand, a full sort, and chance; and in blocks what it is in one."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.evaluate import Features, Images, judge
from dermsearch.evaluate import nearest as blocks
from dermsearch.evaluate.found import METRICS, scores
from dermsearch.evaluate.knn import unit
from dermsearch.evaluate.nearest import before_own, nearest
from dermsearch.models.artifact import Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.nested import Nested
from dermsearch.study.data import Data, People

# slimp.md 4.7
GALLERY = np.array([[1, 0], [0, 1], [0.8, 0.6], [-1, 0.2], [0.6, -0.8]])
QUERIES = np.array([[1, 0.2], [-0.2, 1], [0.5, -1]])
KNOWN, TRUTH = np.array([0, 1, 0, 1, 1]), np.array([0, 1, 0])
ORDERS = [[0, 2, 4, 1, 3], [1, 2, 3, 0, 4], [4, 0, 2, 3, 1]]


def test_the_oracle() -> None:
    places, cosines = nearest(QUERIES, GALLERY, 5)
    assert places.tolist() == ORDERS and (np.diff(cosines, axis=1) < 0).all()
    told = scores(KNOWN[places] == TRUTH[:, None], np.bincount(KNOWN)[TRUTH], (1, 3, 5))
    expected = {1: (2 / 3, 2 / 3, 2 / 3), 3: (1, 2 / 3, 0.712963), 5: (1, 0.466667, 0.779630)}
    for k, values in expected.items():
        for kind, value in zip(("hit", "precision", "map"), values, strict=True):
            assert told[f"{kind}_at_{k}"].mean() == pytest.approx(value, abs=1e-6), (kind, k)


def features(separation: float = 2.0, train: int = 120, heldout: int = 60, classes: int = 3) -> Features:
    rng, sides, labels = np.random.default_rng(0), [], []
    for cases in (train, heldout):
        truth = rng.integers(0, classes, cases)
        sides.append((rng.normal(size=(cases, 8)) + separation * np.eye(8)[truth]).astype(np.float32))
        labels.append({"diagnosis": truth, "veil": np.where(rng.random(cases) < 0.3, -1, truth % 2)})
    names = {"diagnosis": tuple("abcdef"[:classes]), "veil": ("no", "yes")}
    groups = np.arange(heldout) // 2, 1000 + np.arange(train) // 2
    return Features(*sides, *labels, names, groups[0], "val", train_groups=groups[1])


def rows(given: Features, protocol: str = "retrieval") -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(r["label"], r["class"], r["metric"]): r for r in judge(given, protocol).rows}


def by_sort(given: Features, label: str) -> dict[str, float]:
    """The same, one query after another."""
    told: dict[str, list[float]] = {}
    known = given.train_labels[label] >= 0
    for row, true in enumerate(given.heldout_labels[label]):
        if true < 0:
            continue
        others = known & (given.train_groups != given.heldout_groups[row])  # type: ignore[operator]
        near = np.argsort(-(unit(given.train[others]) @ unit(given.heldout[row : row + 1])[0]), kind="stable")
        right = (given.train_labels[label][others] == true)[near]
        for k in (1, 5, 10):
            hits = np.flatnonzero(right[:k])
            average = sum((i + 1) / (place + 1) for i, place in enumerate(hits)) / max(1, min(k, right.sum()))
            for kind, value in (("precision", len(hits) / k), ("hit", len(hits) > 0), ("map", average)):
                told.setdefault(f"{kind}_at_{k}", []).append(float(value))
    return {metric: float(np.mean(values)) for metric, values in told.items()}


def test_every_label_every_class_and_their_mean() -> None:
    given = features()
    found = rows(given)
    for label in given.classes:
        for metric, value in by_sort(given, label).items():
            row = found[label, "", metric]
            assert (row["value"] == pytest.approx(value) and row["ci_low"] < value < row["ci_high"]) or value == 1.0
            assert row["n"] == (given.heldout_labels[label] >= 0).sum()
            cases = [(found[label, c, metric]["value"], found[label, c, metric]["n"]) for c in given.classes[label]]
            assert sum(v * n for v, n in cases) / row["n"] == pytest.approx(value)
    for metric in METRICS:
        both = [found[label, "", metric]["value"] for label in given.classes]
        assert found["mean", "", metric]["value"] == pytest.approx(np.mean(both))


def test_nothing_is_found_of_the_querys_own_patient() -> None:
    given = features(heldout=40, train=40)
    # Every held-out case has its own image among the training cases, as a split by image would have it.
    copied = dataclasses.replace(given, train=given.heldout, train_labels=given.heldout_labels)
    same = dataclasses.replace(copied, train_groups=given.heldout_groups)
    assert rows(copied)["diagnosis", "", "precision_at_1"]["value"] == 1
    assert rows(same)["diagnosis", "", "precision_at_1"]["value"] == pytest.approx(
        by_sort(same, "diagnosis")["precision_at_1"]
    )
    assert rows(same)["diagnosis", "", "map_at_10"]["value"] == pytest.approx(by_sort(same, "diagnosis")["map_at_10"])


def test_fewer_training_cases_than_places_and_a_class_that_none_has() -> None:
    given = features(train=4, classes=3)
    given = dataclasses.replace(given, train_labels={**given.train_labels, "diagnosis": np.array([0, 0, 1, -1])})
    found = rows(given)
    assert found["diagnosis", "a", "precision_at_5"]["value"] == pytest.approx(2 / 5)  # all that there are
    assert found["diagnosis", "a", "hit_at_10"]["value"] == 1
    assert {found["diagnosis", "c", metric]["value"] for metric in METRICS} == {0}
    none = dataclasses.replace(given, train_labels={"diagnosis": np.full(4, -1), "veil": np.full(4, -1)})
    assert {row["value"] for row in rows(none).values()} == {0}


def test_an_encoder_that_sees_all_alike_is_at_chance() -> None:
    given = features(train=2000, heldout=300)
    blind = dataclasses.replace(given, train=np.ones_like(given.train), heldout=np.ones_like(given.heldout))
    sorted_ = np.argsort(given.train_labels["diagnosis"], kind="stable")  # as releases are, one class after another
    labels = {label: truth[sorted_] for label, truth in given.train_labels.items()}
    blind = dataclasses.replace(blind, train_labels=labels)
    assert rows(blind)["diagnosis", "", "precision_at_10"]["value"] == pytest.approx(1 / 3, abs=0.15)
    assert rows(blind)["diagnosis", "", "hit_at_10"]["value"] > 0.9


@pytest.mark.parametrize("of_patients", [False, True])
def test_blocks_change_nothing(of_patients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(50, 6)), rng.normal(size=(97, 6))
    keys[50:60] = keys[:10]  # equals
    who = (rng.integers(0, 9, 50), rng.integers(0, 9, 97)) if of_patients else ()
    whole = nearest(queries, keys, 7, *who)
    own = before_own(queries, keys[:50])
    monkeypatch.setattr(blocks, "QUERIES", 8)
    monkeypatch.setattr(blocks, "KEYS", 13)
    for one, other in zip(
        (*whole, *own), (*nearest(queries, keys, 7, *who), *before_own(queries, keys[:50])), strict=True
    ):
        assert np.array_equal(one, other)
    if of_patients:
        assert not (who[0][:, None] == who[1][whole[0]]).any()


def test_ranks_of_the_own_row() -> None:
    keys = np.array([[1.0, 0], [0, 1], [1, 1], [1, 0]])
    better, ties = before_own(np.array([[1.0, 0], [1, 0], [1, 0.9], [0, 1]]), keys)
    assert better.tolist() == [0, 3, 0, 2] and ties.tolist() == [1, 0, 0, 1]


def test_a_stage_that_hands_on_no_tables_is_at_chance_of_its_own_row() -> None:
    found = rows(features(heldout=41), "own_table")
    assert found["own_table", "", "mean_rank"]["value"] == 21
    assert found["own_table", "", "acc_at_5"]["value"] == pytest.approx(5 / 41)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    data = Data(cases=40, size=32, drawn=People())
    return open_cases(data, tmp_path_factory.mktemp("drawn"))


def meeting(store: CaseStore, names: tuple[str, ...], inner: bool = True) -> tuple[Features, Images, Part]:
    """Image features that are what a stage's own encoder makes of each case's table, so that they meet it exactly."""
    torch.manual_seed(0)
    columns = [asdict(store.columns[name]) for name in names]
    levels = {"lesion": {"columns": columns, "width": 16}, "patient": {"columns": columns, "width": 16}}
    made = Nested(16, ["shared"], levels, out=8, inner=inner)
    if inner:
        made.image["shared"].load_state_dict(made.table.state_dict())  # type: ignore[union-attr]
    rows = np.arange(len(store))
    table = store.table(names, rows)
    seen = made.levels["lesion"].outputs(table.values, table.known, torch.device("cpu"))
    nobody = Features(seen, seen, {}, {}, {}, store.groups(), "val", {"derm": slice(None)})
    encoders = Encoders.random("test_resnet", ("derm",), "shared", 0)
    images = Images(encoders, store, rows, rows, Look(32), torch.device("cpu"), nullcontext, names)
    return nobody, images, made.part()


def test_images_that_meet_their_tables_find_them(drawn: CaseStore) -> None:
    names = ("diameter", "brightness", "site", "age")
    given, images, part = meeting(drawn, names)
    known = drawn.table(names, np.arange(40)).known.any(axis=1)
    found = {
        (r["class"], r["metric"]): r for r in judge(given, "own_table", artifact={"tables": part}, images=images).rows
    }
    assert found["", "acc_at_1"]["value"] == 1 and found["derm to table", "mean_rank"]["n"] == known.sum()
    turned = dataclasses.replace(given, heldout=np.roll(given.heldout, 1, axis=0))
    rows_ = judge(turned, "own_table", artifact={"tables": part}, images=images).rows
    assert next(r["value"] for r in rows_ if r["metric"] == "acc_at_1" and not r["class"]) < 0.2


def test_columns_that_a_study_does_not_name_are_not_read(drawn: CaseStore) -> None:
    given, images, part = meeting(drawn, ("diameter", "site"))
    artifact = {"tables": part}
    told = judge(given, "own_table", artifact=artifact, images=dataclasses.replace(images, metadata=("site",))).rows
    assert next(r["value"] for r in told if r["metric"] == "acc_at_1") < 0.5
    told = judge(given, "own_table", artifact=artifact, images=dataclasses.replace(images, metadata=())).rows
    assert all(r["value"] is None and r["n"] == 0 for r in told if r["class"])  # nothing is known of anybody


def test_a_stage_that_was_trained_without_the_inner_loss_is_at_chance(drawn: CaseStore) -> None:
    given, images, part = meeting(drawn, ("diameter", "site"), inner=False)
    told = judge(given, "own_table", artifact={"tables": part}, images=images).rows
    assert next(r["value"] for r in told if r["metric"] == "mean_rank") == 20.5
