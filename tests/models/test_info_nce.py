"""InfoNCE of images with metadata: known values and gradients, equal rows, rows that do not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dermsearch.models.contrast import floor, info_nce, towards

A = ((1, 0, 1), (0, 2, 1), (1, 1, 0), (2, -1, 1))
B = ((1, 1, 0), (0, 1, 1), (1, 0, -1), (1, -1, 2))
TWINS = (*B[:2], B[1], B[3])
ALL = (True,) * 4


def rows(of: tuple) -> Tensor:
    return torch.tensor(of, dtype=torch.float64, requires_grad=True)


def loss(a: tuple = A, b: tuple = B, temperature: float = 0.1, valid: tuple = ALL, **more) -> Tensor:
    return info_nce(rows(a), rows(b), 1 / temperature, torch.tensor(valid), **more)[0].detach()


@pytest.mark.parametrize("temperature, there, back, both", [
    (1.0, 1.168693, 1.155411, 1.162052),
    (0.5, 1.076542, 1.025773, 1.051157),
    (0.1, 2.193595, 1.511284, 1.852439),
    (0.07, 3.098934, 2.038586, 2.568760),
])  # fmt: skip
def test_known_values(temperature: float, there: float, back: float, both: float) -> None:
    for direction, expected in ((1.0, there), (0.0, back), (0.5, both)):
        assert float(loss(temperature=temperature, direction=direction)) == pytest.approx(expected, abs=1e-5)


def test_each_row_of_a_known_value_and_how_often_it_finds_its_own() -> None:
    a, b = (torch.nn.functional.normalize(rows(x), dim=1) for x in (A, B))
    for one, other, expected in (
        (a, b, (3.710591, 0.041534, 5.013431, 0.008823)),
        (b, a, (5.032361, 0.022337, 0.120329, 0.870110)),
    ):
        each, found = towards(one, other, 10.0, torch.tensor(ALL))
        assert each.tolist() == pytest.approx(expected, abs=1e-5)
        assert found.tolist() == [value < math.log(2) for value in expected]
    assert float(loss(direction=0.25)) == pytest.approx(1.681862, abs=1e-5)
    assert float(info_nce(a, b, 10.0, torch.tensor(ALL))[1]) == 0.5


def test_known_gradients() -> None:
    a, b = rows(A), rows(B)
    scale = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)  # the logarithm of one over it
    info_nce(a, b, scale.exp(), torch.tensor(ALL))[0].backward()
    assert float(scale.grad) == pytest.approx(1.617143, abs=1e-5)  # type: ignore[arg-type]
    for x, expected in (
        (a, ((-0.898935, -1.761206, 0.898935), (0.025889, 0.010113, -0.020226), (-0.351316, 0.351316, 0.702842),
             (0.109948, 0.029426, -0.190470))),
        (b, ((-0.638325, 0.638325, -1.203059), (0.033429, -0.018086, 0.018086), (-0.281657, -0.731704, -0.281657),
             (0.133050, 0.296984, 0.081967))),
    ):  # fmt: skip
        np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-5)


def test_rows_that_do_not_count_neither_look_nor_are_looked_at() -> None:
    valid = (True, False, True, True)
    assert float(loss(valid=valid)) == pytest.approx(2.449796, abs=1e-5)
    a, b = (torch.nn.functional.normalize(rows(x), dim=1) for x in (A, B))
    each, _ = towards(a, b, 10.0, torch.tensor(valid))
    assert each.tolist() == pytest.approx((3.685824, 0, 5.006760, 0.008585), abs=1e-5)
    nobody = rows(A)
    none, found = info_nce(nobody, rows(B), 10.0, torch.zeros(4, dtype=torch.bool))
    none.backward()
    assert float(none) == float(found) == 0 and nobody.grad is not None and not nobody.grad.any()


def test_alike_and_orthonormal() -> None:
    ones, units = ((1.0, 2.0),) * 6, tuple(np.eye(4).tolist())
    assert float(loss(ones, ones, valid=(True,) * 6)) == pytest.approx(math.log(6), abs=1e-9)
    assert float(loss(units, units)) == pytest.approx(0.000136, abs=1e-6)


def test_equal_rows() -> None:
    kinds = torch.tensor([0, 1, 1, 2])
    assert float(loss(b=TWINS)) == pytest.approx(2.487614, abs=1e-5)
    assert float(loss(b=TWINS, kinds=kinds)) == pytest.approx(1.924740, abs=1e-5)
    a = rows(A)
    info_nce(a, rows(TWINS), 10.0, torch.tensor(ALL))[0].backward()
    assert a.grad is not None and a.grad[0].tolist() == pytest.approx((-0.909605, -1.731985, 0.909605), abs=1e-5)


@pytest.mark.parametrize("kinds, expected", [
    ((0, 1, 1, 2), 0.346574), ((0, 0, 1, 0), 0.823959), ((0, 0, 1, 1, 2, 2, 3, 3), 0.693147), ((5, 5, 5, 5), 1.386294),
    ((0, 1, 2), 0.0), ((), 0.0),
])  # fmt: skip
def test_the_floor_of_equal_rows(kinds: tuple, expected: float) -> None:
    assert floor(np.array(kinds)) == pytest.approx(expected, abs=1e-6)


def test_the_floor_is_reached() -> None:
    three = tuple(np.eye(3)[[0, 0, 1, 2]].tolist())
    assert float(loss(three, three, temperature=0.01)) == pytest.approx(0.346574, abs=1e-6)
