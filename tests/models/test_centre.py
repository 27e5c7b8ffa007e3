"""The centre of a teacher's answers: known values, and one centre on any number of processes."""

import pytest
import torch
from gloo import Group

from dermsearch import world
from dermsearch.models.centre import Centre


def moved() -> torch.Tensor:
    """After two updates by this process's rows."""
    centre = Centre(2, 0.9)
    for rows in (torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[10.0, -2.0], [0.0, 0.0]])):
        centre.update(rows[world.mine(2)].mean(0))
    return centre.value


def test_it_is_a_moving_average():
    assert moved().tolist() == pytest.approx([0.9 * 0.2 + 0.5, 0.9 * 0.2 - 0.1])
    assert list(Centre(3, 0.9).state_dict()) == ["value"] and not Centre(3, 0.9).value.any()


def test_it_is_that_of_all_processes(two: Group):
    for found in two(moved):
        torch.testing.assert_close(found, moved())
