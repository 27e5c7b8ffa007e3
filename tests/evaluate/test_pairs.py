"""Pair matching against ranks counted by hand, and against chance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from dermsearch.evaluate import Features, judge
from dermsearch.evaluate.pairs import positions

WIDTH = 8
COLUMNS = {"derm": slice(0, WIDTH), "clinic": slice(WIDTH, 2 * WIDTH)}
BOTH = ("derm to clinic", "clinic to derm")


def paired(noise: float, train: int = 40, heldout: int = 30) -> Features:
    """Clinical features are the dermoscopic ones with noise."""
    rng = np.random.default_rng(0)
    sides = []
    for cases in (train, heldout):
        derm = rng.normal(size=(cases, WIDTH))
        sides.append(np.hstack([derm, derm + noise * rng.normal(size=derm.shape)]).astype(np.float32))
    groups = np.arange(heldout) // 2
    return Features(*sides, {}, {}, {}, groups, "val", COLUMNS, np.arange(train) // 2)


def rows(given: Features) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = judge(given, "pairs").rows
    assert all(r["label"] == "pairs" for r in found)
    return {(r["split"], r["class"], r["metric"]): r for r in found}


def test_ranks_of_a_small_matrix() -> None:
    better, ties = positions(np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.3, 0.7, 0.2]]))
    assert (1 + better).tolist() == [1, 3, 3] and not ties.any()
    better, ties = positions(np.array([[0.5, 0.5, 0.5], [0.8, 0.5, 0.5], [0.1, 0.1, 0.2]]))
    assert better.tolist() == [0, 1, 0] and ties.tolist() == [2, 1, 0]


def test_both_directions_splits_and_metrics_agree_with_counting() -> None:
    given = paired(noise=1.5)
    found = rows(given)
    metrics = ("mean_rank", "acc_at_1", "acc_at_5")
    assert found.keys() == {(s, c, m) for s in ("train", "val") for c in ("", *BOTH) for m in metrics}
    for split, matrix in (("train", given.train), ("val", given.heldout)):
        derm, clinic = (part / np.linalg.norm(part, axis=1)[:, None] for part in np.hsplit(matrix, 2))
        values = {}
        for direction, similarity in zip(BOTH, (derm @ clinic.T, clinic @ derm.T), strict=True):
            order = np.argsort(-similarity, axis=1)
            rank = 1 + (order == np.arange(len(matrix))[:, None]).argmax(axis=1)
            values[direction] = (rank.mean(), (rank <= 1).mean(), (rank <= 5).mean())
        values[""] = np.mean(list(values.values()), axis=0)
        for direction, expected in values.items():
            for metric, value in zip(metrics, expected, strict=True):
                row = found[split, direction, metric]
                assert row["value"] == pytest.approx(value) and row["n"] == len(matrix)
                assert row["ci_low"] < row["value"] < row["ci_high"]
    assert found["train", BOTH[0], "mean_rank"]["value"] != found["train", BOTH[1], "mean_rank"]["value"]


@pytest.mark.parametrize("collapsed", [np.zeros, np.ones])
def test_an_encoder_that_sees_every_image_alike_is_at_chance(collapsed: Any) -> None:
    given = dataclasses.replace(paired(1.0, train=413), train=collapsed((413, 2 * WIDTH), dtype=np.float32) * 0.3)
    found = rows(given)
    for direction in ("", *BOTH):
        assert found["train", direction, "mean_rank"]["value"] == 207
        assert found["train", direction, "acc_at_1"]["value"] == pytest.approx(1 / 413)
        assert found["train", direction, "acc_at_5"]["value"] == pytest.approx(5 / 413)


def test_perfect_pairs_are_all_found_whatever_their_length() -> None:
    given = paired(noise=0.0)
    given = dataclasses.replace(given, train=given.train * np.repeat([1.0, 50.0], WIDTH).astype(np.float32))
    found = rows(given)
    assert {found["train", c, "mean_rank"]["value"] for c in ("", *BOTH)} == {1}
    assert {found["train", c, "acc_at_1"]["value"] for c in ("", *BOTH)} == {1}


def test_patients_are_drawn_and_not_cases() -> None:
    given = paired(noise=1.5, train=120)
    alone = dataclasses.replace(given, train_groups=np.arange(120))
    one = dataclasses.replace(given, train_groups=np.zeros(120))
    of = lambda g: rows(g)["train", BOTH[0], "mean_rank"]  # noqa: E731
    assert of(one)["ci_low"] is None and of(alone)["ci_low"] != of(given)["ci_low"]
    assert of(one)["value"] == of(alone)["value"] == of(given)["value"]
    unknown = dataclasses.replace(given, train_groups=None)
    assert of(unknown) == of(alone)
