from __future__ import annotations

import math
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from dermsearch.errors import UserError
from dermsearch.evaluate.predictions import predictions
from dermsearch.models.artifact import ENCODERS, HEADS, Part
from dermsearch.storage.files import MANIFEST, StoreLost
from dermsearch.storage.stages import HISTORY, PartialStage, StageStore, file_of, packed
from dermsearch.training.stage import Trained
from dermsearch.work.stages import from_what_is_left

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}
PARTS = {ENCODERS: Part({}, WEIGHTS), HEADS: Part({"dim": 4}, {"h": torch.ones(2)})}
ABOUT = {"seconds": 1.0}
ROW = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5, "ci_low": None}
TOLD = {"rows": [ROW], "confusions": [], "seconds": 1.0}


@pytest.fixture(params=["folder", "uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StageStore:
    """The same store by its path and by its URI."""
    return StageStore(str(tmp_path / "store") if request.param == "folder" else f"file://{tmp_path}/store")


def test_a_committed_stage_comes_back(store: StageStore) -> None:
    assert store.manifest("k") is None
    store.commit("k", PARTS, [{"epoch": 1}], ABOUT)
    assert store.manifest("k")["seconds"] == 1.0  # type: ignore[index]
    parts = store.artifact("k")
    assert {kind: part.config for kind, part in parts.items()} == {ENCODERS: {}, HEADS: {"dim": 4}}
    assert all(torch.equal(parts[kind].state[n], v) for kind, part in PARTS.items() for n, v in part.state.items())
    assert store.history("k") == [{"epoch": 1}]
    assert store.address == store.root and StageStore(store.address).manifest("k")


@pytest.mark.parametrize("name", [file_of(ENCODERS), file_of(HEADS), HISTORY, MANIFEST])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_stage_does_not_exist(name: str, damage: str, store: StageStore) -> None:
    store.commit("k", PARTS, [{"epoch": 1}], ABOUT)
    path = Path(store.root) / "stages" / "k" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-3] if damage == "cut" else data[:5] + bytes([data[5] ^ 1]) + data[6:])
    assert store.manifest("k") is None
    store.commit("k", PARTS, [], ABOUT)
    assert store.manifest("k") is not None


def test_states_are_due_as_often_as_asked(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("dermsearch.storage.stages.time.monotonic", lambda: clock[0])
    partial, left = PartialStage(store, "k", every=20), []
    for clock[0] in (5.0, 19.5, 20.0, 21.0):
        left.append(partial.left(within=True))
        assert partial.left() == left[-1]
    partial.save({"history": "[]"})
    clock[0] = 39.0
    assert left == [15, 0.5, 0, 0] and partial.left() == 2
    partial.settle()
    assert PartialStage(store, "k").left(within=True) == math.inf and PartialStage(store, "k").left() == 0


def test_training_goes_on_while_a_state_is_written(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, write = threading.Event(), store.write
    monkeypatch.setattr(store, "write", lambda *given: (gate.wait(60), write(*given)))
    partial, weights = PartialStage(store, "k", every=1e-9), torch.zeros(3)
    partial.save({"learner": {"w": weights}, "history": "[]"})
    assert not gate.is_set() and PartialStage(store, "k").load() is None, "it is not written yet"
    weights += 1
    gate.set()
    state = partial.load()
    assert state is not None and torch.equal(state["learner"]["w"], torch.zeros(3)), "as it was when it was saved"


def test_training_does_not_wait_for_a_slow_store(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, write = threading.Event(), store.write
    monkeypatch.setattr(store, "write", lambda *given: (gate.wait(60), write(*given)))
    partial = PartialStage(store, "k", every=1e-9)
    partial.save({"history": "[]"})
    time.sleep(0.01)
    assert partial.left() > 0 and partial.left(within=True) > 0, "the last one is not written yet"
    gate.set()
    partial.writing.result()  # type: ignore[union-attr]
    assert partial.left() == 0 and partial.left(within=True) == 0


@pytest.mark.parametrize("then", ["save", "settle", "load"])
def test_what_goes_wrong_while_writing_is_raised_at_the_next_turn(then: str, store: StageStore) -> None:
    partial = PartialStage(store, "k", every=1e-9)
    given = [{"history": "[]"}] * (then == "save")

    def lost(*given: object) -> None:
        raise StoreLost("away")

    store.write = lost  # type: ignore[method-assign]
    partial.save({"history": "[]"})
    with pytest.raises(StoreLost, match="away"):
        getattr(partial, then)(*given)
    partial.settle()  # and once


def test_nothing_is_written_behind_a_stage_that_has_ended(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.write
    monkeypatch.setattr(store, "write", lambda *given: (time.sleep(0.2), write(*given)))
    for error in (None, ValueError("a bug")):
        partial = PartialStage(store, "k", every=1e-9)

        def train(partial: PartialStage = partial, error: Exception | None = error) -> Trained:
            partial.save({"history": "[]"})
            if error is not None:
                raise error
            return Trained([], {})

        with pytest.raises(ValueError) if error else nullcontext():
            from_what_is_left(partial, train)
        store.clear_partial("k")
        time.sleep(0.5)
        assert PartialStage(store, "k").load() is None


def test_the_state_of_a_stage_under_way(store: StageStore) -> None:
    partial = PartialStage(store, "k")
    assert partial.load() is None
    partial.save({"learner": WEIGHTS, "history": "[]"})
    again = PartialStage(StageStore(store.address), "k").load()
    assert again is not None and torch.equal(again["learner"]["w"], WEIGHTS["w"])
    path = Path(store.root) / "partial" / "k" / "state.pt"
    path.write_bytes(path.read_bytes()[:-10])
    assert partial.load() is None, "half a state is none"
    partial.save({"history": "[]"})
    store.commit("k", PARTS, [], ABOUT)
    assert not path.exists(), "a finished stage needs no state"


def test_a_place_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where, said in ((str(tmp_path / "file" / "below"), "written to"), ("nonsense://bucket/x", "opened")):
        with pytest.raises(UserError, match=rf"compute\.store: .* cannot be {said}"):
            StageStore(where)


def test_a_stage_of_format_2_is_read(store: StageStore) -> None:
    """Its manifest names no parts, and what lay beside the encoders were heads."""
    files = {"encoders.safetensors": packed(WEIGHTS), "handover.safetensors": packed({"p": torch.ones(2)})}
    store.commit_files("stages/old", files, {"seconds": 1.0, "handover": {"dim": 3}})
    artifact = store.artifact("old")
    assert artifact.keys() == {ENCODERS, HEADS} and artifact[HEADS].config == {"dim": 3}
    assert torch.equal(artifact[ENCODERS].state["w"], WEIGHTS["w"])


def test_judgements_and_starting_weights_come_back(store: StageStore) -> None:
    assert store.judgement("j") is None and store.weights("hash", "resnet18") is None
    store.write_judgement("j", TOLD, of="k")
    judgement = store.judgement("j", of="k")
    assert judgement is not None and judgement["rows"] == [ROW] and judgement["stage"] == "k"
    assert store.predictions("j") is None
    store.write_weights("hash", "resnet18", PARTS)
    again = store.weights("hash", "resnet18")
    assert again is not None and again.keys() == PARTS.keys()
    (Path(store.root) / "weights" / "hash-resnet18" / file_of(HEADS)).unlink()
    assert store.weights("hash", "resnet18") is None


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_judgement_without_its_predictions_is_none(damage: str, store: StageStore) -> None:
    said = predictions({"x": np.array([0, 1])}, {"x": ["p", "q"]}, np.arange(2), {"x": np.eye(2)}, np.array(["a", "b"]))
    store.write_judgement("j", TOLD, of="k", predictions=said)
    assert store.predictions("j").equals(said) and store.judgement("j") is not None  # type: ignore[union-attr]
    path = Path(store.root) / "scores" / "j.arrow"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert store.judgement("j") is None and store.predictions("j") is None


def test_a_store_that_is_gone_is_not_an_empty_one(store: StageStore) -> None:
    store.commit("k", PARTS, [], ABOUT)
    assert store.keys() == {"k"} and store.keys("segments") == set()
    Path(store.root).rename(f"{store.root}-elsewhere")
    with pytest.raises(StoreLost, match=r"^compute\.store: '.*' cannot be listed: .*; once it can, the same command"):
        store.keys()
