"""What trains on a mixture whose stores have weights draws by them, alike on every process; what cannot is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest_search import make_study
from data.inspect.test_check import make, rows
from gloo import Group
from pydantic import ValidationError

from dermsearch.data.mixed import mixed_folder
from dermsearch.data.prepare.mix import mix
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.errors import UserError
from dermsearch.pretext.base import find_task
from dermsearch.run.weights import check_weights
from dermsearch.search.space.checks import space_of
from dermsearch.testing.small import CPU


def joined(folder: Path, weights: Any) -> CaseStore:
    a, b = make(folder / "a", rows(40)), make(folder / "b", rows(80, 100))
    out = folder / f"mix {weights}"
    mix([a, b], out, weights=weights)
    return CaseStore(out)


def drawn_there(folder: str, epoch: int) -> list[int]:
    """What a process would train on: the default order of a task of one pool."""
    from dermsearch.pretext.rotation import Rotation

    store = CaseStore(folder)
    pool = CasePool(store, ("derm",), store.split("train"), CPU)
    task = type("Seeded", (), {"setting": type("", (), {"seed": 3}), "replacement": False})
    return Rotation.plan_epoch(task, epoch, pool, len(pool)).tolist()  # type: ignore[arg-type]


def test_a_mixed_store_keeps_its_weights_and_its_pool_draws_by_them(tmp_path: Path) -> None:
    plain, told = (joined(tmp_path / str(i), weights) for i, weights in enumerate((None, [3, 1])))
    assert plain.settings.get("weights") is None and told.settings["weights"] == [3.0, 1.0]
    assert plain.fingerprint != told.fingerprint, "so keys of what trains on it differ"
    shares = []
    for store in (plain, told):
        pool = CasePool(store, ("derm",), store.split("train"), CPU)
        units = np.array(drawn_there(str(store.folder), 1))
        shares.append(np.bincount(store.label("origin")[pool.cases[units]]) / len(pool))
    assert shares[1] == pytest.approx([0.75, 0.25], abs=0.01) and shares[0][0] < 0.4


@pytest.mark.slow
def test_every_process_plans_the_same(two: Group, tmp_path: Path) -> None:
    folder = str(joined(tmp_path, [3, 1]).folder)
    for epoch in (0, 5):
        one, other = two(drawn_there, folder, epoch)
        assert one == other == drawn_there(folder, epoch)


MIXED: dict[str, Any] = {"source": "mix", "mix": ["a", "b"], "size": 32}


def study(weights: Any, tasks: Any = None, batch: int = 16, downstream: Any = None) -> Any:
    sets = {"pool": {**MIXED, "weights": weights}, **{name: {"cases": 60, "size": 32} for name in ("a", "b")}}
    told = {"tasks": tasks or {"simclr": {}}, "length": [1, 1]}
    train = {"epochs": 2, "batch": batch, "precision": "fp32"}
    lines = downstream or {"knn@a": {}}
    return make_study(
        data=sets, curriculum=told, train=train, downstream=lines, objective={"protocol": next(iter(lines))}
    )


def test_a_study_says_them_by_name() -> None:
    told = {weights if isinstance(weights, str) else str(weights): study(weights).main.shares for weights in (
        "size", "equal", {"a": 2}, {"b": 0.5, "a": 3}
    )}  # fmt: skip
    assert told == {"size": None, "equal": (1, 1), "{'a': 2}": (2, 1), "{'b': 0.5, 'a': 3}": (3, 0.5)}
    parts = {name: SimpleNamespace(fingerprint=name) for name in ("a", "b")}
    places = {mixed_folder(study(w).main, parts, Path("x")).name for w in ("size", "equal", {"a": 1}, {"a": 2})}
    assert len(places) == 3, "equal shares are equal shares, however they are said"
    assert mixed_folder(study("size").main, parts, Path("x")).name == "mix-593116972c0b", "as before"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"c": 2}, r"weights: must name stores of the mixture \(a, b\), not 'c'"),
        ({"a": 0}, "greater than 0"),
        ("even", "'size' or 'equal'"),
    ],
)
def test_weights_that_are_none(weights: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        study(weights)
    with pytest.raises(ValidationError, match="weights: goes with source 'mix'"):
        make_study(data={"weights": "equal"})


def refused(store: CaseStore, **told: Any) -> str:
    asked = study({"a": 3}, **told)
    stores = {"pool": store, "a": store}
    try:
        check_weights(asked, space_of(asked), store, store.split("train"), stores)
    except UserError as error:
        return str(error)
    return ""


def test_an_image_does_not_stand_in_a_batch_twice_where_others_are_negatives(tmp_path: Path) -> None:
    """38 of the 40 images of store a are for training."""
    store = joined(tmp_path, [3, 1])
    assert not refused(store, batch=8) and not refused(store, batch=24, tasks={"rotation": {}})
    assert refused(store, batch=24) == (
        "curriculum.tasks.simclr.batch: would hold up to 24 images of the 38 of 'a', so one might stand there twice; "
        "give a smaller batch or that store less weight"
    )
    assert not refused(joined(tmp_path / "plain", None), batch=64), "without weights it is as ever"


def test_what_composes_its_own_batches_is_refused(tmp_path: Path) -> None:
    store, slimp = joined(tmp_path, [3, 1]), find_task("slimp")
    said = "composes its own batches, so it cannot go with the weights of a mixture's stores"
    for fit in ("inception_combined", "amfam"):
        lines = {f"{fit}@a": {}}
        assert refused(store, tasks={"rotation": {}}, downstream=lines) == f"downstream.{fit}@a: {said}"
    asked, space = study({"a": 3}), SimpleNamespace(tasks={"slimp": slimp}, given={})
    with pytest.raises(UserError, match=rf"^curriculum\.tasks\.slimp: {said}$"):
        check_weights(asked, space, store, store.split("train"), {})  # type: ignore[arg-type]
