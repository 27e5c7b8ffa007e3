"""Spherical k-means: its known values, its definition written out, and what happens at the edges."""

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from dermsearch.models.kmeans import mutual_information, spherical_kmeans


def at(*degrees: float) -> torch.Tensor:
    """Unit vectors in the plane."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def plainly(x: list[list[float]], start: list[list[float]], iterations: int) -> tuple[list[int], list[list[float]]]:
    """The same, number by number."""

    def unit(v):
        length = math.sqrt(sum(a * a for a in v))
        return [a / length for a in v]

    def belongs(row):
        scores = [sum(a * b for a, b in zip(row, c, strict=True)) for c in centroids]
        return scores.index(max(scores))

    centroids = [unit(c) for c in start]
    for _ in range(iterations):
        of = [belongs(row) for row in x]
        for k in range(len(centroids)):
            members = [row for row, label in zip(x, of, strict=True) if label == k]
            if members:
                centroids[k] = unit([sum(column) / len(members) for column in zip(*members, strict=True)])
    return [belongs(row) for row in x], centroids


@pytest.mark.parametrize("iterations", [1, 10])
def test_known_values(iterations):
    x = at(0, 10, 90, 100)
    labels, centroids = spherical_kmeans(x, x[[0, 2]], iterations)
    assert labels.tolist() == [0, 0, 1, 1]
    expected = torch.tensor([[0.996195, 0.087156], [-0.087156, 0.996195]]).double()
    torch.testing.assert_close(centroids, expected, rtol=0, atol=1e-6)
    assert x[:2].mean(0).norm().item() == pytest.approx(0.996195, abs=1e-6)


@pytest.mark.parametrize("clusters, seed", [(2, 0), (3, 1), (5, 2), (5, 3)])
@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_definition(clusters, seed, iterations):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels, centroids = spherical_kmeans(x, x[:clusters], iterations)
    expected, means = plainly(x.tolist(), x[:clusters].tolist(), iterations)
    assert labels.tolist() == expected and len(set(expected)) == clusters
    torch.testing.assert_close(centroids, torch.tensor(means, dtype=torch.float64), rtol=0, atol=1e-12)


def test_an_empty_cluster_stays_where_it_is():
    x = at(0, 10, 20)
    labels, centroids = spherical_kmeans(x, at(5, 180, 270), 10)
    assert labels.tolist() == [0, 0, 0]
    torch.testing.assert_close(centroids, at(10, 180, 270))


def test_equal_rows_all_go_to_the_first():
    labels, centroids = spherical_kmeans(torch.ones(5, 3), torch.ones(2, 3), 10)
    assert labels.tolist() == [0] * 5 and centroids.isfinite().all()


def test_a_long_row_counts_for_more_and_a_long_start_does_not():
    x = at(0, 10) * torch.tensor([[9.0], [1.0]])
    _, (centroid,) = spherical_kmeans(x, x[:1], 1)
    assert 0 < math.degrees(math.atan2(*centroid.flip(0).tolist())) < 1.1
    x = at(0, 40, 90)
    labels, _ = spherical_kmeans(x, at(0, 90) * torch.tensor([[1.0], [9.0]]), 0)
    assert labels.tolist() == [0, 0, 1]


def test_more_moves_change_nothing_once_it_stands():
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    labels, centroids = spherical_kmeans(x, x[:3], 200)
    again, same = spherical_kmeans(x, centroids, 1)
    assert torch.equal(labels, again)
    torch.testing.assert_close(same, centroids)


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information(seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(5, (90,), generator=generator)
    b = torch.where(torch.rand(90, generator=generator) < 0.5, a % 3, torch.randint(3, (90,), generator=generator))
    expected = normalized_mutual_info_score(a.numpy(), b.numpy())
    assert 0.05 < expected < 0.95
    assert mutual_information(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert mutual_information(a, torch.tensor([3, 0, 4, 2, 1])[a]).item() == pytest.approx(1)  # other names


def test_mutual_information_of_one_cluster():
    alone, two = torch.zeros(8, dtype=torch.long), torch.arange(8) % 2
    assert mutual_information(alone, alone) == 1 and mutual_information(alone, two) == 0
    assert mutual_information(torch.arange(8) // 4, two).item() == pytest.approx(0, abs=1e-6)
