"""Relative location: its head, its answers, and the smallest patch."""

import numpy as np
import pytest
import torch
from pretext import tiny
from torch import nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.views.pictures import Pictures
from dermsearch.pretext.base import Batch, Setting
from dermsearch.pretext.relative_location import CENTRE, NEIGHBOURS, SMALLEST, RelativeLocation, rendered


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def test_uniform_logits(store):
    run = tiny.Steps("relative_location", store)
    task = run.learner.tasks["shared"].double()
    nn.init.zeros_(task.head.weight)
    task.backbone.register_forward_pre_hook(lambda module, args: args[0].double())
    (batch,) = run.batches().values()
    assert task.loss(batch).value.item() == pytest.approx(2.079442, abs=1e-5)


def test_neck_has_its_known_number_of_parameters():
    task = RelativeLocation(nn.Identity(), RelativeLocation.Config(), Setting(100, 64, 2048, 10, 0))
    assert sum(p.numel() for p in task.neck.parameters()) == 16_789_504
    assert task.head.in_features == 4096 and task.head.out_features == 8


class Colours(nn.Module):
    """A backbone that sees where a patch came from: the mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class Ramp:
    """Images whose red runs from left to right and whose green runs from top to bottom."""

    device = torch.device("cpu")

    def pixels(self, units):
        side = torch.arange(96) / 95 * 255
        x = torch.stack([side.expand(96, 96), side[:, None].expand(96, 96), torch.zeros(96, 96)])
        return Pictures(x.round().to(torch.uint8).repeat(len(units), 1, 1, 1))


def test_answer_i_is_the_place_of_neighbour_i():
    """Pairs come image by image, neighbour first, centre second, places row by row from the top left."""
    task = RelativeLocation(Colours(), RelativeLocation.Config(gray=0.0), Setting(4, 96, 3, 4, 0))
    seen: list[torch.Tensor] = []
    task.neck.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    found = task.loss(Batch(np.arange(4), Ramp(), 96, 0, 0, 0))
    pairs = seen[0].reshape(4, 8, 2, 3)
    x, y = (pairs[:, :, 0, c] - pairs[:, :, 1, c] for c in (0, 1))  # neighbour against centre
    for i, (down, right) in enumerate([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]):
        for step, moved in ((right, x[:, i]), (down, y[:, i])):
            assert (moved * step > 0.4).all() if step else (moved.abs() < 0.5).all(), i
    assert [3 * (1 + d) + 1 + r for d in (-1, 0, 1) for r in (-1, 0, 1) if (d, r) != (0, 0)] == NEIGHBOURS
    assert torch.equal(found.embedding, pairs[:, 0, 1]) and CENTRE == 4


@pytest.mark.parametrize("size, side", [(32, 24), (64, 24), (110, 24), (112, 25), (224, 49), (292, 64)])
def test_patches_are_never_smaller_than_the_smallest(size, side):
    """Below it a stride-32 network's last 3 x 3 convolutions would see single pixels."""
    assert rendered(RelativeLocation.Config(), size) == side >= SMALLEST
    assert rendered(RelativeLocation.Config(patch=40), size) == 40


def test_a_smaller_patch_is_refused():
    with pytest.raises(ValueError, match="patch"):
        RelativeLocation.Config(patch=SMALLEST - 1)


def test_head_and_neck_have_their_own_decay():
    task = RelativeLocation(nn.Identity(), RelativeLocation.Config(head_weight_decay=0.25), Setting(9, 64, 8, 3, 0))
    assert task.options() == {p: {"weight_decay": 0.25} for p in ("neck", "head")}
