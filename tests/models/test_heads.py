"""Dropout by number, and plain heads."""

import zlib

import numpy as np
import pytest
import torch
from gloo import Group
from torch import nn

from dermsearch import world
from dermsearch.models.heads import GlobalDropout, chance, mlp


def dropped(shape: tuple[int, ...], p: float, step: int, seed: int = 3) -> torch.Tensor:
    """What is left of ones, for the global batch."""
    dropout = GlobalDropout(p, seed)
    dropout.step = step
    return world.gather(dropout(torch.ones(shape)[world.mine(shape[0])]))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(16, 10), (8, 3, 4)])
def test_same_mask_on_any_number_of_processes(shape, two: Group, four: Group):
    whole = dropped(shape, 0.5, 11)
    for part in [*two(dropped, shape, 0.5, 11), *four(dropped, shape, 0.5, 11)]:
        assert torch.equal(part, whole)


def test_share_and_scale():
    y = dropped((400, 100), 0.3, 0)
    assert torch.equal(y.unique(), torch.tensor([0, 1 / 0.7]))
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def mixed(x: np.ndarray) -> np.ndarray:
    """The hash in unsigned numbers, written down a second time."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


@pytest.mark.parametrize(("rows", "count"), [(range(5), 7), (range(3, 9), 70_000)])
def test_numbers_are_a_hash_of_seed_row_and_place(rows, count):
    with np.errstate(over="ignore"):
        places = [np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) for n in (count, rows.stop)]
        base = np.uint32(zlib.crc32(b"12") ^ 2**31)  # less 2**31, for signed numbers
        bits = mixed(mixed(places[1][rows.start :] + base)[:, None] + mixed(places[0]))
    numbers = bits.view(np.int32).astype(np.float32) * np.float32(2**-32) + np.float32(0.5)
    assert np.array_equal(chance(12, rows, count), numbers)


def test_rows_places_and_seeds_are_independent():
    """Beside one another no two of 300 rows, places or seeds agree more than by chance: five standard errors."""
    by_seed = np.stack([chance(seed, range(1), 4000)[0].numpy() for seed in range(300)])
    rows = chance(7, range(300), 4000).numpy()
    places = chance(7, range(4000), 300).numpy().T
    for numbers in (by_seed, rows, places):
        assert np.abs(np.corrcoef(numbers) - np.eye(300)).max() < 5 / np.sqrt(4000)
        assert np.histogram(numbers, 64, (0, 1))[0] == pytest.approx(numbers.size / 64, rel=0.05)


def test_every_step_and_seed_has_its_own_mask():
    masks = [dropped((8, 50), 0.5, step, seed) for seed in range(3) for step in range(5)]
    assert len({m.numpy().tobytes() for m in masks}) == 15


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(4, 5)
    assert GlobalDropout(0.5, 0).eval()(x) is x and GlobalDropout(0.0, 0)(x) is x


def test_mask_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    a = torch.rand(1)
    torch.manual_seed(0)
    dropped((8, 50), 0.5, 1)
    assert torch.equal(torch.rand(1), a)


def test_mlp():
    assert [type(m) for m in mlp(4, 5, 6)] == [nn.Linear, nn.ReLU, nn.Linear]
    assert mlp(4, 5, 6)(torch.randn(2, 4)).shape == (2, 6)


def test_mlp_with_batchnorm():
    head = mlp(4, 5, 6, 7, norm=True, bias=False)
    assert [type(m) for m in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert all(m.bias is None for m in head if isinstance(m, nn.Linear))
    assert [m.num_features for m in head if isinstance(m, nn.BatchNorm1d)] == [5, 6]
    assert head(torch.randn(2, 4)).shape == (2, 7)
