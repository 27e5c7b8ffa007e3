"""SLIMP's known values row by row: phenotypes, what each patient loses, equal rows, and what changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from models.test_info_nce import ALL, TWINS, A
from models.test_info_nce import rows as given
from pretext import tiny
from pretext.test_slimp import WHO, G, M, People, Shown, U, bare, double, numbered, outcome, shown, small, store
from torch import Tensor

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import Table
from dermsearch.models import contrast
from dermsearch.models.contrast import info_nce
from dermsearch.pretext.slimp import equal_rows, first_times

__all__ = ["store"]

MAJOR = (0, 1, 0, 2, 2, 2, 3, 4, 5)  # patient by patient, three lesions each


def phenotypes(units: Sequence[int], unit: bool = False) -> Tensor:
    """Of the three patients, by lesions in this order of which each counts once."""
    rows = double(U), double(M), double(G)
    task, batch = bare(0.0, *rows), shown(units, rows[0])
    found = task.nested.lesions({"derm": rows[0][batch.units]}, {"derm": batch.there}, rows[1][batch.units], unit)
    once = np.flatnonzero(first_times(batch.units))
    place = torch.from_numpy(batch.pool.patients(batch.units[once]))
    return task.nested.pooled(found[once], place, 3).detach()


@pytest.mark.parametrize("case, expected", [
    ({"units": range(6)}, ((2, 2, .5, .5), (0, 2, 2, 2), (1, -1 / 3, 2, 2 / 3))),
    ({"units": MAJOR}, ((2, 2, .5, .5), (0, 2, 2, 2), (1, -1 / 3, 2, 2 / 3))),
    ({"units": (5, 2, 4, 1, 3, 0)}, ((2, 2, .5, .5), (0, 2, 2, 2), (1, -1 / 3, 2, 2 / 3))),
    ({"units": (0, 1, 2, 3, 5)}, ((2, 2, .5, .5), (0, 2, 2, 2), (2, -1, 2.5, 1.5))),
    ({"units": range(6), "unit": True},
     ((.8, .4, .5, .5), (0, 1, .707107, .707107), (.030964, .102369, .569036, .097631))),
])  # fmt: skip
def test_known_phenotypes(case: dict[str, Any], expected: Sequence[Sequence[float]]) -> None:
    np.testing.assert_allclose(phenotypes(**case), expected, atol=1e-6)


def test_what_comes_again_does_not_count() -> None:
    assert first_times(np.array(MAJOR)).tolist() == [True, True, False, True, False, False, True, True, True]


@pytest.mark.parametrize("case, rows, columns", [
    ({"temperature": 0.1}, (0.696273, 0.017005, 0.081056), (0.394220, 0.152274, 0.001050)),
    ({"temperature": 0.5}, (0.859733, 0.493062, 0.723676), (0.908783, 0.782915, 0.360097)),
    ({"units": MAJOR}, (0.696273, 0.017005, 0.081056), (0.394220, 0.152274, 0.001050)),
    ({"strangers": [1]}, (0.006243, 0, 0.041349), (0.296604, 0, 0.000765)),
])  # fmt: skip
def test_what_each_patient_loses(case: dict[str, Any], rows: tuple, columns: tuple, monkeypatch) -> None:
    """As the task asks it: of each phenotype among the tables, then of each table among the phenotypes."""
    told: list[Tensor] = []
    whole = contrast.towards

    def towards(*asked: Any) -> tuple[Tensor, Tensor]:
        told.append(whole(*asked)[0].detach())
        return whole(*asked)

    monkeypatch.setattr(contrast, "towards", towards)
    outcome(0.0, **case)
    there, back = told
    np.testing.assert_allclose(there, rows, atol=1e-5)
    np.testing.assert_allclose(back, columns, atol=1e-5)


@pytest.mark.parametrize("temperature, outer, expected", [
    (0.1, None, 0.25 * 8.135249 + 0.75 * 0.223646), (0.1, 0.5, 0.25 * 8.135249 + 0.75 * 0.688044),
])  # fmt: skip
@pytest.mark.parametrize("learnt", [False, True])
def test_each_contrast_has_a_temperature_of_its_own(temperature, outer, expected, learnt) -> None:
    found, _ = outcome(0.25, temperature=temperature, outer_temperature=outer, learnt=learnt)
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    if learnt:
        scales = 1 / temperature, 1 / (outer or temperature)
        assert (found["inner_scale"], found["outer_scale"]) == pytest.approx(scales, rel=1e-6)


def test_targets_shared_over_equal_rows_change_nothing() -> None:
    """Neither the loss nor its gradient, so nothing of it is offered; what each twin would lose alone is more."""
    plain, shared = (given(A), given(TWINS)), (given(A), given(TWINS))
    value = info_nce(*plain, 10.0, torch.tensor(ALL))[0]
    value.backward()
    z, w = (torch.nn.functional.normalize(x, dim=1) for x in shared)
    among = torch.tensor(((1, 0, 0, 0), (0, 0.5, 0.5, 0), (0, 0.5, 0.5, 0), (0, 0, 0, 1)), dtype=torch.float64)
    both = [-(among * (x @ y.T * 10).log_softmax(1)).sum(1).mean() for x, y in ((z, w), (w, z))]
    other = sum(both) / 2
    other.backward()  # type: ignore[union-attr]
    assert float(value.detach()) == pytest.approx(2.487614, abs=1e-5)
    assert float(other.detach()) == pytest.approx(2.487614, abs=1e-5)  # type: ignore[union-attr]
    assert shared[0].grad is not None and plain[0].grad is not None
    torch.testing.assert_close(plain[0].grad, shared[0].grad)
    # Their own gradients are shared out differently between two rows that are one table's, and sum to the same.
    ours, theirs = (x.grad for x in (plain[1], shared[1]))
    assert ours is not None and theirs is not None
    torch.testing.assert_close(ours[1] + ours[2], theirs[1] + theirs[2])


class Twins(People):
    """Of whom two have the same row."""

    def table(self, names: Sequence[str], units: np.ndarray) -> Table:
        return numbered(np.where(units == 2, 1, units), self.missing)


@pytest.mark.parametrize("equal, expected, least", [("keep", 2.487614, 0.346574), ("drop", 1.924740, 0.0)])
def test_equal_rows_are_kept_or_dropped_as_the_stage_says(equal: str, expected: float, least: float) -> None:
    a = double(((1, 0, 1), (0, 2, 1), (1, 1, 0), (2, -1, 1)))
    b = double(((1, 1, 0), (0, 1, 1), (9, 9, 9), (1, -1, 2)))  # the third reads the second's row
    batch = Shown(np.arange(4), Twins(a), 32, 0, 0, 0)  # type: ignore[arg-type]
    loss = bare(1.0, a, b, b, equal=equal)({"derm": batch})["derm"]
    assert float(loss.value.detach()) == pytest.approx(expected, abs=1e-5)
    assert float(loss.parts["inner_floor"]) == pytest.approx(least, abs=1e-6)


def test_a_value_that_is_not_known_is_equal_to_none_that_is() -> None:
    """Nor the mean of its column, which stands as 0."""
    values, known = np.zeros((4, 2), np.float32), np.ones((4, 2), bool)
    known[1, 0] = known[2, 0] = False
    assert equal_rows(Table((), values, known)).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_order_of_patients_and_of_lesions_changes_neither_loss_nor_gradient(weight: float) -> None:
    one, gradients = outcome(weight)
    for units in ((5, 2, 1, 0, 4, 3), (2, 3, 4, 5, 0, 1), (1, 0, 2, 5, 3, 4)):
        found, others = outcome(weight, units)
        assert found == pytest.approx(one, abs=1e-12)
        for x, y in zip(gradients, others, strict=True):
            torch.testing.assert_close(x, y)


class Twice(People):
    """Every lesion of the last patient is there a second time, as a lesion of its own."""

    who = np.array([*WHO, 2, 2, 2])

    def patients(self, units: np.ndarray) -> np.ndarray:
        return self.who[units]


def test_a_patient_twice_as_large_does_not_weigh_more() -> None:
    """The outer loss and what it asks of the patients' tables are those of the patient as he was."""
    one, (_, _, persons) = outcome(0.0)
    u, m, g = double([*U, *U[3:]]), double([*M, *M[3:]]), double(G)
    batch = Shown(np.arange(9), Twice(u), 32, 0, 0, 0)  # type: ignore[arg-type]
    value = bare(0.0, u, m, g)({"derm": batch})["derm"].value
    value.backward()
    assert float(value.detach()) == pytest.approx(one["loss"], abs=1e-12)
    assert g.grad is not None
    torch.testing.assert_close(g.grad, persons)


@pytest.mark.parametrize("config, reads", [
    ({}, False), ({"corrupt": 0.3}, False), ({"patients": "by_lesions"}, False), ({"positive": "diagnosis=b"}, True),
])  # fmt: skip
def test_no_label_is_read_but_for_positive_sampling(
    store: CaseStore, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], reads: bool
) -> None:
    small(monkeypatch, **config)
    asked: list[str] = []
    whole = CaseStore.label
    run = tiny.Steps("slimp", store)  # which looks at what classes there are
    monkeypatch.setattr(CaseStore, "label", lambda self, name: asked.append(name) or whole(self, name))
    run.learner.orders(0, run.pools, 64)
    run.step()
    assert bool(asked) == reads
