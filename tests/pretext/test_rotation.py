"""Rotation: which way it turns, that it moves whole pixels, and that the answer is the turn."""

import pytest
import torch
from pretext import tiny
from torch import nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.pretext.base import Setting
from dermsearch.pretext.rotation import Rotation, turns


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def test_turns_are_counter_clockwise():
    x = torch.tensor([[1, 2], [3, 4]]).expand(1, 3, 2, 2)
    expected = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    for channel in range(3):
        assert turns(x)[0, :, channel].tolist() == expected


def test_uniform_logits_and_their_known_number_of_parameters(store):
    run = tiny.Steps("rotation", store)
    task = run.learner.tasks["shared"].double()
    nn.init.zeros_(task.head.weight)
    nn.init.zeros_(task.head.bias)
    task.backbone.register_forward_pre_hook(lambda module, args: args[0].double())
    (batch,) = run.batches().values()
    assert task.loss(batch).value.item() == pytest.approx(1.386294, abs=1e-5)
    whole = Rotation(nn.Identity(), Rotation.Config(), Setting(10, 32, 2048, 10, 0))
    assert sum(p.numel() for p in whole.head.parameters()) == 2048 * 4 + 4


def test_backbone_sees_all_four_turns_of_one_crop_and_label_k_is_turn_k(store):
    run = tiny.Steps("rotation", store)
    task = run.learner.tasks["shared"]
    seen: list[torch.Tensor] = []
    task.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    (batch,) = run.batches().values()
    found = task.loss(batch)
    view = batch.view(task.view, "view")
    assert seen[0].shape == (4 * tiny.BATCH, 3, tiny.SIZE, tiny.SIZE)
    for k in range(4):
        x = seen[0][k::4]
        for _ in range(k):  # turned back, clockwise: what was on the left comes to the top
            x = x.transpose(2, 3).flip(3)
        assert torch.equal(x, view), k
    # By hand: the mean of -log softmax at the turn, image by image.
    features = task.backbone(seen[0])
    each = torch.log_softmax(task.head(features), 1).reshape(tiny.BATCH, 4, 4)
    plain = -sum(each[i, k, k] for i in range(tiny.BATCH) for k in range(4)) / (4 * tiny.BATCH)
    torch.testing.assert_close(found.value, plain)
    right = sum(int(each[i, k].argmax()) == k for i in range(tiny.BATCH) for k in range(4)) / (4 * tiny.BATCH)
    assert float(found.parts["accuracy"]) == pytest.approx(right)
    torch.testing.assert_close(found.embedding, features.reshape(tiny.BATCH, 4, -1)[:, 0])  # of the upright image


def test_nothing_else_turns_the_view():
    """Crop and one flip: any other turn or flip would make the answer a matter of chance, or of interpolation."""
    view = Rotation(nn.Identity(), Rotation.Config(), Setting(10, 32, 8, 10, 0)).view
    assert view.rotate == 0 and view.vflip == 0 and view.flip == 0.5 and view.scale == (0.08, 1.0)


def test_defaults_are_those_of_the_authors():
    """0.2 for 512 turned images; a tenth after 30 and 50 of 70 epochs, 5 of which climb. Four turns cost four."""
    defaults = Rotation.train_defaults
    assert 4 * defaults["lr_batch"] == 512 and defaults["lr"] == 0.2
    assert [round(70 * m) for m in defaults["milestones"]] == [30, 50] and round(70 * defaults["warmup"]) == 5
    assert Rotation.cost(Rotation.Config(), 224) == 4
