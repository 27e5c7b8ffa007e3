"""What a student is taught, by numbers that were computed by hand."""

import numpy as np
import pytest
import torch

from dermsearch.models import distil

Z_T = torch.tensor([[4, 1, 0], [0, 2, 2]], dtype=torch.float64)
Z_S = torch.tensor([[2, 2, 0], [1, 0, 3]], dtype=torch.float64)


@pytest.mark.parametrize(("temperature", "value"), [(4.0, 0.937666), (1.0, 0.667380)])
def test_answers(temperature, value):
    assert distil.answers(Z_S, Z_T, temperature).item() == pytest.approx(value, abs=1e-5)
    assert distil.answers(Z_T, Z_T, temperature).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("weights", "value"), [((2, 5, 10), 0.267976), ((1, 1, 1), 0.464235)])
def test_classes_weigh(weights, value):
    given = [torch.tensor(weights, dtype=torch.float64)]
    assert distil.weighted_classes([Z_S], torch.tensor([[0], [2]]), given).item() == pytest.approx(value, abs=1e-5)
    both = distil.weighted_classes([Z_S, Z_S], torch.tensor([[0, -1], [2, -1]]), given * 2)
    assert both.item() == pytest.approx(value, abs=1e-5), "a label that is not known is left out"


F_T = torch.tensor([[0, 0], [3, 4], [6, 0]], dtype=torch.float64)
F_S = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=torch.float64)


def test_distances_and_angles():
    for x, apart, cosines in (
        (F_T, [0.9375, 1.125, 0.9375], [0.6, 0.28, 0.6]),
        (F_S, [0.878680, 0.878680, 1.242641], [0, 0.707107, 0.707107]),
    ):
        found, seen = distil.relations(x)
        np.testing.assert_allclose([found[0, 1], found[0, 2], found[1, 2]], apart, atol=1e-5)
        np.testing.assert_allclose([seen[0, 1, 2], seen[1, 0, 2], seen[2, 0, 1]], cosines, atol=1e-5)
    d, a = distil.relational(F_S, F_T)
    assert (d.item(), a.item()) == pytest.approx((0.017472, 0.020515), abs=1e-5)
    assert 25 * d.item() + 50 * a.item() == pytest.approx(1.462516, abs=2e-5)
    assert [x.item() for x in distil.relational(7 * F_T + 3, F_T)] == pytest.approx([0, 0], abs=1e-9)


def test_rows_that_are_the_same_have_a_gradient():
    x = torch.zeros(3, 4, requires_grad=True)
    sum(distil.relational(x, F_T.repeat(1, 2))).backward()
    assert x.grad.isfinite().all()


def test_gram_matrices():
    student = torch.tensor([[[[1, 0], [0, 1]], [[1, 1], [1, 1]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[2, 0], [0, 0]], [[0, 1], [0, 1]]]], dtype=torch.float64)
    np.testing.assert_allclose(distil.gram(student)[0], [[0.25, 0.25], [0.25, 0.5]])
    np.testing.assert_allclose(distil.gram(teacher)[0], [[0.5, 0], [0, 0.25]])
    assert distil.gram_error(student, teacher).item() == pytest.approx(0.25, abs=1e-5)


T = torch.tensor([[[1, 0], [0.8, 0.6], [0, 1], [1, 0]], [[0, 1], [0, 1], [0.6, 0.8], [0.8, 0.6]]], dtype=torch.float64)
S = torch.tensor([[[1, 0], [1, 0], [0.6, 0.8], [0, 1]], [[0, 1], [0.6, 0.8], [0, 1], [1, 0]]], dtype=torch.float64)


def test_the_order_of_similarity():
    t, s = distil.cosines(T), distil.cosines(S)
    np.testing.assert_allclose(t.flatten(0, 1), [[0.8, 0.6], [0, 1], [1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]])
    np.testing.assert_allclose(s.flatten(0, 1), [[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8], [0, 1], [1, 0]])
    assert distil.own_original(t).item() == pytest.approx(0.655700, abs=1e-5)
    assert distil.ranked(t).flatten().tolist() == [True] * 5 + [False]
    assert distil.similarity(s, t, 0.5).item() == pytest.approx(0.121297, abs=1e-5)


def test_one_wrong_row_is_left_out():
    right = torch.eye(2, dtype=torch.float64)[:, None].repeat(1, 4, 1)
    right[1, 3] = torch.tensor([1.0, 0.0])
    assert distil.ranked(distil.cosines(right)).tolist() == [[True] * 3, [True, True, False]]
