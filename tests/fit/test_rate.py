"""A fit's rate, chosen by training cases that are kept aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit import small
from gloo import Group

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.fit.finetune import Finetune
from dermsearch.fit.rate import rates_of, trainings
from dermsearch.models.artifact import PREDICTOR
from dermsearch.run.check import check_entry
from dermsearch.study.load import load_study
from dermsearch.testing.small import Interrupted, Kept
from dermsearch.training.choice import chosen, loss
from dermsearch.training.health import StageFailed

SELECT = {"select": [1e-6, 1e-3, 3e-4]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    torch.set_num_threads(1)
    return small.make_store(tmp_path_factory.mktemp("data") / "store")


def test_the_loss_is_of_classes_alike_and_of_known_cases() -> None:
    said = {"x": np.array([[0.5, 0.5], [0.2, 0.8], [0.2, 0.8], [0.9, 0.1]]), "y": np.ones((4, 1))}
    truth = {"x": np.array([0, 1, 1, -1]), "y": np.full(4, -1)}
    assert loss(said, truth) == pytest.approx((-np.log(0.5) - np.log(0.8)) / 2)


@pytest.mark.parametrize(
    ("of", "best"),
    [
        ({0.1: 0.6, 0.2: 0.9, 0.3: 0.7}, 0.2),
        ({0.1: None, 0.2: None, 0.3: 0.1}, 0.3),
        ({0.1: 0.6, 0.2: 0.9, 0.3: np.nan}, 0.2),  # finite weights, but what is predicted by them overflows
    ],
)
def test_the_surest_of_what_is_true_is_chosen_and_what_diverges_is_out(of: dict[float, Any], best: float) -> None:
    def attempt(rate: float, kept: Any) -> dict[str, np.ndarray]:
        if of[rate] is None:
            raise StageFailed("loss is nan")
        return {"x": np.array([[of[rate], 1 - of[rate]]])}

    assert chosen(list(of), Kept(), attempt, {"x": np.array([0])})[0] == best


def test_where_all_diverge_the_stage_fails() -> None:
    def attempt(rate: float, kept: Any) -> dict[str, np.ndarray]:
        raise StageFailed(f"loss is nan at {rate}")

    with pytest.raises(StageFailed, match=r"loss is nan at 0\.2"):
        chosen([0.1, 0.2], Kept(), attempt, {"x": np.array([0])})


def test_it_is_trained_at_the_chosen_rate_on_all_cases(store: CaseStore) -> None:
    found = small.train("finetune", store, lr=SELECT, epochs=6)
    again = {rate: small.train("finetune", store, lr=rate, epochs=6) for rate in SELECT["select"]}
    equal = [r for r, one in again.items() if small.equal(found.parts[PREDICTOR].state, one.parts[PREDICTOR].state)]
    assert equal == [1e-3]
    assert found.parts[PREDICTOR].config["config"]["lr"] == 1e-3 and len(found.history) == 6


@pytest.mark.parametrize("step", [False, True])  # is a state kept of every step, or of every epoch?
@pytest.mark.parametrize("after", [2, 3, 6, 8])  # at the end of the first, in the second, between two, in the last
def test_stopped_anywhere_it_goes_on_and_tries_nothing_twice(after: int, step: bool, store: CaseStore) -> None:
    whole, kept = Kept(step), Kept(step, stops=after)
    wanted = small.train("finetune", store, lr=SELECT, kept=whole)
    with pytest.raises(Interrupted):
        small.train("finetune", store, lr=SELECT, kept=kept)
    found = small.train("finetune", store, lr=SELECT, kept=kept)
    assert small.equal(found.parts[PREDICTOR].state, wanted.parts[PREDICTOR].state)
    assert kept.stops == after + whole.stops, "as many states as of one that was not stopped"


def picked(folder: str) -> float:
    torch.set_num_threads(1)
    return small.train("finetune", CaseStore(folder), lr=SELECT).parts[PREDICTOR].config["config"]["lr"]


@pytest.mark.slow
def test_two_processes_choose_what_one_chooses(store: CaseStore, two: Group) -> None:
    assert [picked(str(store.folder))] * 2 == two(picked, str(store.folder))


def test_cases_of_one_patient_cannot_be_parted(tmp_path: Path) -> None:
    store = small.make_store(tmp_path / "store")
    with pytest.raises(UserError, match=r"^finetune\.lr: the labelled cases are of one patient"):
        small.train("finetune", store, lr=SELECT, rows=np.arange(2))


def test_what_it_costs_is_known() -> None:
    assert trainings(Finetune.Config(lr=0.1)) == 1 and rates_of(Finetune.Config()) == ()
    assert trainings(Finetune.Config.model_validate({"lr": SELECT})) == pytest.approx(3.4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"select": [0.1]}, "downstream.finetune.lr.select: must have at least 2 items, not 1"),
        ({"select": [0.1, 0.1]}, "downstream.finetune.lr.select: must name each rate once"),
        ({"select": [0.1, 0]}, "downstream.finetune.lr.select.1: must be above 0, not 0"),
        ({"select": [0.1, 0.2], "by": 1}, "downstream.finetune.lr.by: unknown field; choose from: select"),
        ("fast", "downstream.finetune.lr: must be a number, not 'fast'"),
        (-1, "downstream.finetune.lr: must be above 0, not -1"),
    ],
)
def test_a_mistake_is_a_sentence(given: Any, said: str) -> None:
    with pytest.raises(UserError) as raised:
        study = load_study("curriculum_three.yaml", [f"downstream.finetune={json.dumps({'lr': given})}"])
        check_entry(study, study.entries["finetune"])
    assert said in str(raised.value)
