"""What processes of a group do together: both ways to gather are one function, and one may work alone."""

import pytest
import torch
from gloo import Group

from dermsearch import world

WAYS = ("gather_with_gradient", "gather_by_sum", "gather_by_torch")


def gathered(way: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of all processes, and the gradient of a loss that each process makes of all rows in its own way."""
    rows = torch.arange(12.0).reshape(4, 3).sin()
    own = rows[world.mine(4)].clone().requires_grad_()
    whole = getattr(world, way)(own) if world.size() > 1 else own
    weights = torch.arange(12.0).reshape(4, 3) + 1
    share = weights[world.mine(4)].sum() if world.size() > 1 else 78.0  # another factor on every process
    (whole.square() * weights).sum().mul(share).backward()
    return whole.detach(), own.grad


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_all_and_the_gradient_of_everybody(way, two: Group):
    rows, gradient = gathered(way)
    (first, a), (second, b) = two(gathered, way)
    assert torch.equal(first, rows) and torch.equal(second, rows)
    torch.testing.assert_close(torch.cat([a, b]), gradient)


def alone() -> tuple[int, int, float]:
    """The first process asks for a sum that no other takes part in."""
    with world.alone():
        inside = world.size(), float(world.reduce_sum(torch.ones(()))) if world.rank() == 0 else 1.0
        assert world.mine(6) == slice(0, 6)
    return inside[0], world.size(), inside[1]


def test_one_process_works_alone(two: Group):
    assert two(alone) == [(1, 2, 1.0), (1, 2, 1.0)]


def test_alone_ends_with_an_error(two: Group):
    assert two(sizes_after_an_error) == [2, 2]


def sizes_after_an_error() -> int:
    try:
        with world.alone():
            raise ValueError
    except ValueError:
        return world.size()
