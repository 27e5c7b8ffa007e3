"""Where a stage goes on from: what the first process finds is what all go on from; what fits nothing is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gloo import Group
from pretext import tiny

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.training.under_way import Unfit

OTHER = {"learner": {}, "optimizer": {}, "history": "[]"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: Any) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def kept(data: bytes | None) -> tiny.Kept:
    made = tiny.Kept()
    made.data = data
    return made


def gone_on(folder: str, states: list[bytes | None]) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Each process with a state of its own: the epochs that it trained, and what came of it."""
    torch.manual_seed(world.rank())
    epochs: list[int] = []
    encoders, _ = tiny.train(
        "simclr",
        CaseStore(folder),
        kept=kept(states[world.rank()]),
        report=lambda row: epochs.append(row["epoch"]),
        epochs=2,
    )
    return epochs, {n: w.clone() for n, w in encoders.state_dict().items()}


@pytest.mark.slow
def test_all_processes_go_on_from_what_the_first_one_finds(store: CaseStore, two: Group) -> None:
    state = tiny.Kept()
    with pytest.raises(RuntimeError, match="after an epoch"):
        tiny.train("simclr", store, kept=state, report=end, epochs=2)
    buffer = tiny.Kept()
    buffer.save(OTHER)
    for states, expected in (
        ([state.data, None], [2]),
        ([state.data, buffer.data], [2]),
        ([None, state.data], [1, 2]),
    ):
        (first, one), (second, other) = two(gone_on, str(store.folder), states)
        assert first == second == expected
        assert all(torch.equal(w, other[n]) for n, w in one.items())


def end(row: Any) -> None:
    raise RuntimeError("after an epoch")


def test_a_state_of_another_stage_is_refused(store: CaseStore) -> None:
    state = tiny.Kept()
    state.save(OTHER)
    with pytest.raises(Unfit):
        tiny.train("simclr", store, kept=state, epochs=2)


def said() -> Any:
    return world.from_first({"of": torch.full((2,), float(world.rank()))} if world.rank() == 0 else "other")


def test_what_the_first_says_all_hear(two: Group) -> None:
    assert all(torch.equal(each["of"], torch.zeros(2)) for each in two(said))
    assert world.from_first("alone") == "alone"
